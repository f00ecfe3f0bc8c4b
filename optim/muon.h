#pragma once

#include <array>
#include <vector>

#include <reel/optim/optimizer.h>

namespace reel::optim {

/// What the step of a matrix of R rows and C columns is multiplied by.
enum class MuonScale : std::uint8_t {
  original,     ///< √max(1, R / C)
  match_adamw,  ///< 0.2 √max(R, C), for learning rates that AdamW would have; match_rms_adamw
};

/// The options of Muon.
struct MuonOptions {
  double learning_rate = 1e-3;
  double momentum = 0.95;  ///< mu below, less than 1
  bool nesterov = true;    ///< Nesterov momentum
  double epsilon = 1e-7;   ///< the least norm that a direction is divided by
  int iterations = 5;      ///< of Newton and Schulz
  /// a, b and c below; the default is steep at 0, and reaches 1 only about.
  std::array<double, 3> coefficients = {3.4445, -4.775, 2.0315};
  MuonScale scale = MuonScale::original;
  /// Orthogonalises each of the blocks of rows that a parameter has, such as those of the gates of
  /// an LSTM, by itself; PyTorch takes the whole matrix.
  bool by_block = false;
  double weight_decay = 0.1;  ///< lambda below
  nn::Selection decays = {};  ///< the parameters with weight decay; see matrices_only
  std::vector<Group> groups = {};
};

/// Momentum whose direction is orthogonalised, for the matrices of a model, as torch.optim.Muon
/// computes it:
///
///     m <- mu m + (1 - mu) g
///     d <- m                          (Nesterov: (1 - mu) g + mu m)
///     X <- d / max(|d|, epsilon), and then `iterations` times, with A = X Xᵀ,
///     X <- a X + (b A + c A^2) X
///     p <- p - lr lambda p
///     p <- p - lr scale X
///
/// in the dtype of the parameter, where PyTorch rounds X to bf16. Parameters of other shapes are
/// for another optimizer, such as AdamW: freeze them here, and the matrices there.
///
///     const auto others = [](const Param& p) { return !matrices_only(p); };
///     Muon muon(params, {.groups = {{.params = others, .frozen = true}}});
///     AdamW adamw(params, {.groups = {{.params = matrices_only, .frozen = true}}});
///
/// Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024.
class Muon final : public Optimizer {
 public:
  /// Throws ValueError if an option is negative, the momentum is 1 or more, a coefficient is not
  /// finite, or a parameter that is not frozen is no matrix.
  explicit Muon(const nn::ModuleParams& params, const MuonOptions& options = {});

 private:
  void begin(Slot& slot, const Tensor& gradient, double clip) const override;
  void update(const Piece& piece) const override;
  Tensor orthogonalized(const Param& param, const Tensor& direction) const;
  double scale_of(const Param& param) const;
  std::size_t blocks_of(const Param& param) const;

  MuonOptions options_;
};

}  // namespace reel::optim
