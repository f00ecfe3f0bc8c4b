// The cost of LibTorch's autograd per op: the work of bench/bench_tape.cpp, chains of a thousand
// ops on eight numbers, on one thread. Prints JSON: the version, and nanoseconds of CPU time per
// op. Built and run by compare_tape.py.
#include <torch/torch.h>
#include <torch/version.h>

#include <algorithm>
#include <cstdio>
#include <ctime>
#include <vector>

namespace {

constexpr int chain = 1000;

using Op = torch::Tensor (*)(const torch::Tensor&);
struct Row {
  const char* name;
  Op op;
};
const Row ops[] = {
    {"tanh", [](const torch::Tensor& x) { return torch::tanh(x); }},
    {"add", [](const torch::Tensor& x) { return torch::add(x, x); }},
    {"mul", [](const torch::Tensor& x) { return torch::mul(x, x); }},
};

torch::Tensor run(Op op, torch::Tensor y) {
  for (int i = 0; i < chain; ++i) y = op(y);
  return y;
}

void plain(Op op) {
  const torch::NoGradGuard no_grad;
  run(op, torch::full({8}, 0.5f));
}

void record(Op op) { run(op, torch::full({8}, 0.5f).requires_grad_()); }

void record_and_backward(Op op) {
  const torch::Tensor x = torch::full({8}, 0.5f).requires_grad_();
  torch::autograd::grad({run(op, x)}, {x}, {torch::ones({8})});
}

double processor_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Nanoseconds per op: the median of batches that take about a second together.
double measure(void (*work)(Op), Op op) {
  for (int i = 0; i < 10; ++i) work(op);
  std::vector<double> batches;
  const double begin = processor_seconds();
  while (processor_seconds() - begin < 1) {
    const double start = processor_seconds();
    for (int i = 0; i < 10; ++i) work(op);
    batches.push_back((processor_seconds() - start) / 10);
  }
  std::nth_element(batches.begin(), batches.begin() + batches.size() / 2, batches.end());
  return 1e9 / chain * batches[batches.size() / 2];
}

}  // namespace

int main() {
  torch::set_num_threads(1);
  std::printf("{\"version\": \"%s\"", TORCH_VERSION);
  for (const Row& row : ops) {
    std::printf(", \"plain %s\": %.1f", row.name, measure(plain, row.op));
    std::printf(", \"record %s\": %.1f", row.name, measure(record, row.op));
    std::printf(", \"record_and_backward %s\": %.1f", row.name,
                measure(record_and_backward, row.op));
  }
  std::printf("}\n");
}
