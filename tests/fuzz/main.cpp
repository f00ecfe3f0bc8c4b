// fuzz TARGET [an option or a folder of libFuzzer ...]: reads inputs that it makes of those in the
// folders, and stops at one that does harm.
// fuzz TARGET --examples FOLDER: writes valid inputs to begin with, and large ones to FOLDER-large.
// fuzz --targets: the names of the targets.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "target.h"

using namespace reel::fuzz;

namespace {

const Target* target;

void write(const std::vector<std::string>& inputs, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  int count = 0;
  for (const std::string& input : inputs)
    std::ofstream(folder / std::to_string(count++), std::ios::binary) << input;
}

}  // namespace

// These names are libFuzzer's, which has the function main.
extern "C" int LLVMFuzzerInitialize(int* argc, char*** argv) {
  const std::vector<std::string_view> words(*argv + 1, *argv + *argc);
  if (!words.empty() && words[0] == "--targets") {
    for (const Target* each : targets())
      std::printf("%.*s\n", static_cast<int>(each->name.size()), each->name.data());
    std::exit(0);
  }
  for (const Target* each : targets())
    if (!words.empty() && words[0] == each->name) target = each;
  if (!target) {
    std::fputs("usage: fuzz TARGET [OPTION ...] [FOLDER ...], fuzz --targets\n", stderr);
    std::exit(2);
  }
  if (words.size() == 3 && words[1] == "--examples") {
    write(target->examples(), words[2]);
    write(target->large(), std::string(words[2]) + "-large");
    std::exit(0);
  }
  (*argv)[1] = (*argv)[0];  // libFuzzer does not see the name of the target
  ++*argv;
  --*argc;
  return 0;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* bytes, std::size_t size) {
  accepts(*target, {reinterpret_cast<const char*>(bytes), size});
  return 0;
}
