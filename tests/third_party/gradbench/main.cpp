// A tool for GradBench: answers its messages, a line of JSON each, until standard input ends.
// The first word on the command line may be the number of threads.
#include <reel/autograd/threads.h>

#include <chrono>
#include <exception>
#include <iostream>
#include <string>
#include <vector>

#include "evals.h"

namespace gradbench {
namespace {

using Clock = std::chrono::steady_clock;

const std::map<std::string, Module> modules = {
    {"hello", hello()}, {"saddle", saddle()}, {"particle", particle()},
    {"lse", lse()},     {"llsq", llsq()},     {"kmeans", kmeans()},
    {"ode", ode()},     {"gmm", gmm()},       {"lstm", lstm()},
};

Json timing(const char* name, Clock::duration time) {
  return {{"name", name},
          {"nanoseconds", std::chrono::duration_cast<std::chrono::nanoseconds>(time).count()}};
}

// Runs the function as often as the input asks for.
Json evaluate(const Json& message) {
  const Json& input = message.at("input");
  const auto setting = [&](const char* name, double fallback) {
    return input.is_object() ? input.value(name, fallback) : fallback;
  };
  const double runs = setting("min_runs", 1), seconds = setting("min_seconds", 0);
  const Clock::time_point start = Clock::now();
  const Prepared prepared = modules.at(message.at("module")).at(message.at("function"))(input);
  Json timings = {timing("prepare", Clock::now() - start)};
  Tensors outputs;
  Clock::duration elapsed{};
  for (double run = 0; run < runs || std::chrono::duration<double>(elapsed).count() < seconds;
       ++run) {
    const Clock::time_point begin = Clock::now();
    outputs = prepared.compute();
    const Clock::duration time = Clock::now() - begin;
    elapsed += time;
    timings.push_back(timing("evaluate", time));
  }
  return {{"success", true}, {"output", prepared.output(outputs)}, {"timings", timings}};
}

Json answer(const Json& message) {
  const std::string kind = message.at("kind");
  if (kind == "start") return {{"tool", "reel"}};
  if (kind == "define") return {{"success", modules.contains(message.at("module"))}};
  if (kind != "evaluate") return Json::object();
  try {
    return evaluate(message);
  } catch (const std::exception& error) {
    return {{"success", false}, {"error", error.what()}};
  }
}

void answer_all() {
  for (std::string line; std::getline(std::cin, line);) {
    const Json message = Json::parse(line);
    Json reply = answer(message);
    reply["id"] = message.at("id");
    std::cout << reply << std::endl;
  }
}

}  // namespace
}  // namespace gradbench

int main(int count, char** words) {
  try {
    if (count > 1) reel::set_threads(std::stoi(words[1]));
    gradbench::answer_all();
  } catch (const std::exception& error) {
    std::cerr << "gradbench: " << error.what() << '\n';
    return 1;
  }
  return 0;
}
