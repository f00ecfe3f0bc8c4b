#pragma once

#include <string>
#include <string_view>
#include <vector>

/// Pieces of a page of HTML 5, and files of SVG. Every text is escaped where it is put in.
namespace reel::html {

/// Text as content or as the value of an attribute in quotes: &, <, >, " and ' as references; bytes
/// that are not UTF-8 and control characters other than tab and newline as U+FFFD.
std::string escaped(std::string_view text);

/// A file of SVG of that size with the styles of the charts, on white.
std::string svg_file(double width, double height, std::string_view content);

/// A table with a header row; the first cell of each row is its header. It scrolls sideways where
/// it is wider than the page.
class Table {
 public:
  /// `caption` says what is in it.
  Table(std::string caption, std::vector<std::string> header);
  void add(std::vector<std::string> cells) { rows_.push_back(std::move(cells)); }
  bool empty() const { return rows_.empty(); }
  std::string str() const;

 private:
  std::string caption_;
  std::vector<std::string> header_;
  std::vector<std::vector<std::string>> rows_;
};

/// A part of a page under a heading of level 2.
struct Section {
  std::string id, title, content;  ///< the content is HTML
};

/// A whole page, with its styles and a list of its sections; the subtitle and footer are text.
std::string page(std::string_view title, std::string_view subtitle,
                 const std::vector<Section>& sections, std::string_view footer);

}  // namespace reel::html
