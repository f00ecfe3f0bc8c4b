#include "references.h"

namespace reel::testing {

const References& references() {
  static const References all = [] {
    References table;
    add_elementwise_references(table);
    add_shape_references(table);
    add_index_references(table);
    add_reduction_references(table);
    add_product_references(table);
    add_loss_references(table);
    add_recurrent_references(table);
    add_sequence_references(table);
    return table;
  }();
  return all;
}

const Reference& reference_of(const OpSpec& op) {
  static const Reference none;
  const auto found = references().find(op.name);
  return found == references().end() ? none : found->second;
}

}  // namespace reel::testing
