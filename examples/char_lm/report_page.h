#pragma once

#include <string>
#include <vector>

#include "../support/html.h"
#include "reported_run.h"

namespace reel::char_lm {

/// The report of one run, or of several beside each other: a page of HTML that needs nothing else,
/// the same for the same runs. It begins with `sections`.
std::string report_page(const std::vector<ReportedRun>& runs,
                        std::vector<html::Section> sections = {});

}  // namespace reel::char_lm
