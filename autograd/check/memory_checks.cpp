// The checks that an op depends only on its arguments: not on previous memory contents, and not on
// other threads.
#include <atomic>
#include <optional>
#include <thread>

#include <reel/autograd/check/op_case.h>
#include <reel/autograd/engine/buffer.h>

namespace reel::op {
namespace {

using namespace detail;

// Fills all newly allocated memory with a byte.
class FilledMemory {
 public:
  explicit FilledMemory(unsigned char byte) : before_(pool::fill_blocks(byte)) {}
  ~FilledMemory() { pool::fill_blocks(before_); }
  FilledMemory(const FilledMemory&) = delete;
  FilledMemory& operator=(const FilledMemory&) = delete;

 private:
  std::optional<unsigned char> before_;
};

struct Results {
  Tensors values;
  std::vector<Tensor> gradients;

  bool operator==(const Results& other) const {
    return same_bits(values, other.values) && same_bits(gradients, other.gradients);
  }
};

Results results_of(const Case& c, std::span<const Tensor> inputs) {
  Results results;
  results.values = c.run(inputs);
  if (c.differentiable()) results.gradients = c.gradients(inputs);
  return results;
}

}  // namespace

Complaints check_memory(const OpSpec& op) {
  return over_cases(op, [](const Case& c, const Complain& complain) {
    const auto in_memory_of = [&](unsigned char byte) {
      const FilledMemory memory(byte);
      return results_of(c, c.inputs);
    };
    const Results zeros = in_memory_of(0), ones = in_memory_of(0xff);
    if (!same_bits(zeros.values, ones.values)) complain("values depend on what memory held before");
    if (!same_bits(zeros.gradients, ones.gradients))
      complain("gradients depend on what memory held before");
  });
}

Complaints check_concurrent_calls(const OpSpec& op) {
  const std::vector<Case> cases = cases_of(op);
  const auto results = [](const Case& c) { return results_of(c, c.inputs); };
  Complaints complaints;
  std::vector<Results> alone(cases.size());
  for (std::size_t i = 0; i < cases.size(); ++i)
    check_case(cases[i], complaints, [&](const Case& c, auto) { alone[i] = results(c); });
  if (!complaints.empty()) return complaints;
  constexpr int callers = 3, rounds = 3;
  std::vector<std::atomic<bool>> differs(cases.size());
  std::atomic<int> ready = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < callers; ++t)
    threads.emplace_back([&] {
      for (++ready; ready < callers;) std::this_thread::yield();
      for (int round = 0; round < rounds; ++round)
        for (std::size_t i = 0; i < cases.size(); ++i) try {
            if (!(results(cases[i]) == alone[i])) differs[i] = true;
          } catch (const std::exception&) {
            differs[i] = true;
          }
    });
  for (std::thread& thread : threads) thread.join();
  for (std::size_t i = 0; i < cases.size(); ++i)
    if (differs[i])
      complaints.push_back(
          fmt::format("{}: different results in concurrent calls", cases[i].title));
  return complaints;
}

}  // namespace reel::op
