#include <reel/optim/adamw.h>

namespace reel::optim {

AdamW::AdamW(const nn::ModuleParams& params, const AdamWOptions& options)
    : Adam("adamw", params,
           {.learning_rate = options.learning_rate,
            .beta1 = options.beta1,
            .beta2 = options.beta2,
            .epsilon = options.epsilon,
            .weight_decay = options.weight_decay,
            .decays = options.decays,
            .amsgrad = options.amsgrad,
            .groups = options.groups},
           Decay::decoupled) {}

}  // namespace reel::optim
