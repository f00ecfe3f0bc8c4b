#pragma once

#include <malloc.h>

#include <chrono>
#include <fstream>
#include <functional>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

/// The C++ worker's side of the protocol of bench/compare.py, described in peers/protocol.py.
namespace protocol {

using Json = nlohmann::json;

/// What a worker prepared for a row. Without a call the worker does not support the row.
struct Prepared {
  std::function<void()> call;   ///< does the row's work once
  std::function<Json()> facts;  ///< what an answer contains besides time and memory; may be missing
};

/// The integer `key` of a row.
inline std::int64_t size_in(const Json& row, const char* key) {
  return row.at(key).get<std::int64_t>();
}

inline void forget_peak_memory() {
  malloc_trim(0);
  std::ofstream("/proc/self/clear_refs") << "5";
}

inline double peak_memory_mib() {
  std::ifstream status("/proc/self/status");
  for (std::string word; status >> word;)
    if (double kib = 0; word == "VmHWM:" && status >> kib) return kib / 1024;
  return std::numeric_limits<double>::quiet_NaN();
}

/// Answers requests until the input ends. `forget` empties caches before a new row.
inline int serve(
    const Json& hello, const std::function<Prepared(const Json& row)>& prepare,
    const std::function<void()>& forget = [] {}) {
  using Clock = std::chrono::steady_clock;
  std::cout << hello << std::endl;
  Json row;
  Prepared prepared;
  for (std::string line; std::getline(std::cin, line);) {
    const Json request = Json::parse(line);
    if (request.at("row") != row) {
      row = request.at("row");
      prepared = {};
      forget();
      forget_peak_memory();
      prepared = prepare(row);
      if (prepared.call) prepared.call();  // the first one allocates and plans
    }
    if (!prepared.call) {
      std::cout << Json{{"skipped", "not for this worker"}} << std::endl;
      continue;
    }
    std::vector<double> seconds;
    for (std::int64_t i = size_in(request, "calls"); i > 0; --i) {
      const auto begin = Clock::now();
      prepared.call();
      seconds.push_back(std::chrono::duration<double>(Clock::now() - begin).count());
    }
    Json answer = prepared.facts ? prepared.facts() : Json::object();
    answer["seconds"] = seconds;
    answer["peak_mib"] = peak_memory_mib();
    std::cout << answer << std::endl;
  }
  return 0;
}

}  // namespace protocol
