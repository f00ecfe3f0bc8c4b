// A program with two ops of one name ends before main, with a message; see test_process.py.
#include <reel/autograd/engine/op.h>
#include <reel/autograd/ops.h>

using namespace reel;
using namespace reel::op;

namespace {

template <class T>
void copy(Ctx<T> c) {
  std::copy(c.in(0).begin(), c.in(0).end(), c.out().begin());
}

const Op<> first_op{{
    .name = "same_name",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { copy(c); },
    .gradient = none("it is not called"),
    .samples = {normal({3})},
}};

const Op<> second_op{{
    .name = "same_name",
    .arguments = {"x"},
    .shape = same_shape,
    .forward = []<Real T>(Ctx<T> c) { copy(c); },
    .gradient = none("it is not called"),
    .samples = {normal({3})},
}};

}  // namespace

int main() { return first_op.spec().name == second_op.spec().name ? 0 : 1; }
