// A program that calls no op sees all of them.
#include <reel/autograd/engine/op_spec.h>

#include <cstdio>

int main() {
  for (const reel::op::OpSpec* op : reel::op::registry())
    std::printf("%.*s\n", static_cast<int>(op->name.size()), op->name.data());
}
