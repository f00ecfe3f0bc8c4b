#include <doctest/doctest.h>

#include <cerrno>
#include <vector>

#include <reel/autograd/ops.h>
#include <reel/optim/step_files.h>

#include "faults.h"
#include "temporary_directory.h"

using namespace reel;
using optim::StepFiles;

namespace {

optim::RunState state_of(Index step) {
  optim::RunState state;
  state.params.tensors["w"] = ones({10});
  state.numbers["step"] = static_cast<double>(step);
  return state;
}

std::vector<Index> steps_of(const StepFiles& files) {
  std::vector<Index> steps;
  for (const auto& [step, path] : files.files()) steps.push_back(step);
  return steps;
}

using Steps = std::vector<Index>;

}  // namespace

TEST_CASE("step files: the newest are kept") {
  const TemporaryDirectory directory;
  const StepFiles files(directory.path(), 3);
  CHECK(steps_of(files).empty());
  for (const Index step : {0, 100, 200, 999'999, 1'000'000, 12'345'678}) {
    files.save(step, state_of(step));
    CHECK(steps_of(files).back() == step);
  }
  CHECK(steps_of(files) == Steps{999'999, 1'000'000, 12'345'678});
  CHECK(files.files().at(999'999) == directory / "step-999999.safetensors");
  CHECK(files.files().at(12'345'678) == directory / "step-12345678.safetensors");
  for (const auto& [step, path] : files.files())
    CHECK(optim::load_run_state(path).number("step") == static_cast<double>(step));
  files.save(999'999, state_of(7));  // one that is there is replaced
  CHECK(steps_of(files) == Steps{999'999, 1'000'000, 12'345'678});
  CHECK(optim::load_run_state(files.files().at(999'999)).number("step") == 7);
}

TEST_CASE("step files: what was written is kept, also where another run went further") {
  const TemporaryDirectory directory;
  StepFiles(directory.path(), 5).save(800, state_of(800));
  StepFiles(directory.path(), 5).save(900, state_of(900));
  const StepFiles two(directory.path(), 2), one(directory.path(), 1);
  two.save(100, state_of(100));
  CHECK(steps_of(two) == Steps{100, 900});
  one.save(50, state_of(50));
  CHECK(steps_of(two) == Steps{50});
}

TEST_CASE("step files: files of other names, links and directories stay") {
  const TemporaryDirectory directory, elsewhere;
  for (const char* name :
       {"step-1.safetensors", "step-0000100.safetensors", "step-000100.safetensors.bak",
        "step-000100", "step--00100.safetensors", "step-+00100.safetensors",
        "step- 00100.safetensors", "step-00010x.safetensors", "Step-000100.safetensors",
        ".step-000100.safetensors.1-1.tmp", "model.safetensors", "step-.safetensors",
        "step-99999999999999999999.safetensors", "best-step-000100.safetensors"})
    directory.file(name, "mine");
  std::filesystem::create_directory(directory / "step-000001.safetensors");
  std::filesystem::create_symlink(elsewhere.file("weights", "mine"),
                                  directory / "step-000002.safetensors");
  const auto count = directory.count();
  const StepFiles files(directory.path(), 1);
  for (const Index step : {10, 20, 30}) files.save(step, state_of(step));
  CHECK(steps_of(files) == Steps{30});
  CHECK(directory.count() == count + 1);
  CHECK(content_of(elsewhere / "weights") == "mine");
}

TEST_CASE("step files: errors") {
  const TemporaryDirectory directory;
  CHECK(contains(message_of<ValueError>([&] { StepFiles(directory.path(), 0); }),
                 "StepFiles: keep is 0, but has to be at least 1 (" __FILE__ ":"));
  const StepFiles files(directory.path(), 1), none(directory / "none", 1);
  CHECK(contains(message_of<ValueError>([&] { files.save(-1, state_of(1)); }),
                 "StepFiles: step -1 is negative (" __FILE__ ":"));
  const std::string missing = (directory / "none").string();
  CHECK(message_of<FileError>([&] { none.save(7, state_of(7)); }) ==
        missing + "/step-000007.safetensors: cannot write: No such file or directory");
  CHECK(message_of<FileError>([&] { none.files(); }) ==
        missing + ": cannot read: No such file or directory");
  CHECK(directory.count() == 0);
}

TEST_CASE("step files: a file is removed only when the new one is on the disk") {
  bool struck = true;
  for (int call = 0; struck; ++call) {
    const TemporaryDirectory directory;
    const StepFiles files(directory.path(), 2);
    for (const Index step : {1, 2}) files.save(step, state_of(step));
    testing::Faults f{.at = call, .error = EIO, .and_after = true};
    std::string message;
    {
      const testing::Injection injection(f);
      message = message_of<FileError>([&] { files.save(3, state_of(3)); });
    }
    struck = f.calls > call;
    const bool failed = message != "nothing was thrown";
    CAPTURE(f.failed);
    CAPTURE(message);
    const Steps steps = steps_of(files);
    if (failed)
      CHECK((steps == Steps{1, 2} || steps == Steps{1, 2, 3}));
    else
      CHECK(steps == Steps{2, 3});
    for (const auto& [step, path] : files.files())
      CHECK(optim::load_run_state(path).number("step") == static_cast<double>(step));
  }
}
