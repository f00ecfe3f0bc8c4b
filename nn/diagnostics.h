#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <reel/autograd/observer.h>

namespace reel::nn {

/// The options of Diagnostics.
struct DiagnosticsOptions {
  /// Gates and time constants are those of this many tokens of a layer, evenly spread.
  Index tokens = 256;
  /// The step's Jacobian is taken at this many tokens of a layer, evenly spread; 0: nowhere.
  Index jacobians = 4;
  /// At most this many iterations of the power method; its estimate is a lower bound, after 10
  /// of them usually within a few percent.
  int iterations = 10;
};

/// The values of a gate: σ in [0, 1] or tanh in [-1, 1].
struct GateReport {
  std::string name;      ///< as in the names of the parameters: "forget"
  double lowest;         ///< of its range: 0 or -1; the highest is 1
  double saturated = 0;  ///< the share of values less than 0.05 from an end of the range
  std::array<Index, 20> histogram = {};  ///< counts in bins of equal width over the range

  bool operator==(const GateReport&) const = default;
};

/// Quantiles over the units of τ = -1 / ln f in steps, the time in which what a unit remembers
/// decays to 1/e at the mean f of its forget gate. (Tallec and Ollivier, "Can recurrent neural
/// networks warp time?", 2018.)
struct TimeConstants {
  double p5, median, p95;

  bool operator==(const TimeConstants&) const = default;
};

/// What was seen of a layer, or of one of its directions.
struct LayerReport {
  std::string name;  ///< "rnn.0", "rnn.0.backward"
  /// |dL/dh_t| at each step t, over the batch and the units: the gradient of all that follows,
  /// y_t included.
  std::vector<double> gradient_norms = {};
  /// |∂s_t/∂s_{t-1}|, the largest singular value of the Jacobian of a step, where s are all states
  /// of a row: h, or (h, c).
  std::vector<double> jacobian_norms = {};
  std::vector<GateReport> gates = {};
  /// f is the forget gate, of a Gru z, 1 - i if the two are coupled.
  std::optional<TimeConstants> time_constants = {};

  bool operator==(const LayerReport&) const = default;
};

/// Looks into recurrent layers during training: how gradients flow through time, what the gates
/// do, how long units remember. Computes nothing while it does not watch, and changes no number.
///
///     nn::Diagnostics diagnostics;
///     {
///       const auto watch = diagnostics.watch();
///       Tape tape;
///       gradients = tape.gradient(cross_entropy(model(inputs), targets), params);
///     }
///     fmt::print("{}", diagnostics.str());
///
/// Of layers that run as one op, Rnn, Gru, Lstm and Recurrent of a UnitCell, everything is seen; of
/// those that run as a linear_scan, the gradients of the scan's states and the scan's factors as
/// the gate "forget"; of an Unroll the gradients of the first tensor of its state. All may be in
/// containers, packed, in segments or under Tbptt. With `create_graph` fused layers are not seen,
/// as their op is replaced by its specification.
class Diagnostics {
 public:
  /// Throws ValueError for negative options, or no tokens or iterations.
  explicit Diagnostics(const DiagnosticsOptions& options = {}, Site site = {});
  ~Diagnostics();
  Diagnostics(const Diagnostics&) = delete;
  Diagnostics& operator=(const Diagnostics&) = delete;

  /// Watches what this thread does in the lifetime of the result, which has to span one backward
  /// pass and, for layers that run in ops, its forward pass; what was seen of layers before is
  /// forgotten. If a layer is called several times in it, as for the parts of a
  /// sequence, the calls count as one sequence.
  [[nodiscard]] ObserverScope watch();
  /// Of every layer that was seen, in the order in which they ran.
  std::vector<LayerReport> layers() const;

  /// A table of the layers, and one of their gates.
  std::string str() const;

 private:
  class Seen;
  std::unique_ptr<Seen> seen_;
};

}  // namespace reel::nn
