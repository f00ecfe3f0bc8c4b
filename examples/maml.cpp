// Model-agnostic meta-learning (Finn, Abbeel and Levine, 2017): initial values are learned from
// which a few steps of gradient descent on a few examples fit a new task. Each task is a filter,
// y_t = c_0 x_t + c_1 x_{t-1} + c_2 x_{t-2}, with coefficients of its own. The gradient of the loss
// after these steps goes through them, so through gradients of a fused GRU. A second network learns
// all tasks as one, without looking ahead at the steps: the joint training that is compared.
#include <fmt/format.h>

#include <reel/reel.h>

#include "support/program.h"
#include "support/training.h"

using namespace reel;
using namespace reel::examples;

namespace {

struct Settings {
  std::string save;
  Index length = 8, examples = 10, units = 20, inner = 3, tasks = 4, steps = 100, epochs = 10,
        seed = 1;
  double inner_rate = 0.1, learning_rate = 5e-3, factor = 3;
};

struct Examples {
  Tensor x, y;  // [T, B, 1]
};

struct Task {
  explicit Task(Rng& rng) : c{rng.normal(), rng.normal(), rng.normal()} {}

  Examples draw(const Settings& s, Rng& rng, DType dtype = f32) const {
    const Tensor x = rng.normal({s.length, s.examples, 1}, 0, 1, dtype);
    const auto delayed = [&](Index n) { return pad(slice(x, 0, 0, s.length - n), 0, n, 0); };
    return {x, c[0] * x + c[1] * delayed(1) + c[2] * delayed(2)};
  }

  std::vector<double> c;
};

class Model {
 public:
  Model(const Params& params, Index units)
      : params_(params), rnn_(params / "rnn", 1, units), head_(params / "head", units, 1) {}

  Tensor loss(const Examples& examples) const { return mse(head_(rnn_(examples.x).y), examples.y); }
  // The loss of other examples after steps of gradient descent on those of `known`.
  Tensor loss_after(Index steps, double rate, const Examples& known, const Examples& other) const {
    nn::NamedTensors values;
    std::vector<Tensor> before;
    for (const Param& p : params_.list()) before.push_back(values.tensors[p.name()] = p);
    for (Index step = 0; step < steps; ++step) {
      const Tensor loss = nn::functional_call(params_, values, [&] { return this->loss(known); });
      const auto gradients = Tape::current()->gradient(loss, before, {.create_graph = true});
      for (std::size_t i = 0; const Param& p : params_.list()) {
        before[i] = before[i] - rate * gradients[i];
        values.tensors[p.name()] = before[i++];
      }
    }
    return nn::functional_call(params_, values, [&] { return loss(other); });
  }

 private:
  Params params_;
  nn::Gru rnn_;
  nn::Linear head_;
};

// The gradient through the steps against differences, of a small network.
void check(Settings s) {
  s.length = 4, s.examples = 2;
  const Params params(3, f64);
  const Model model(params, 3);
  Rng rng(4);
  const Task task(rng);
  const Examples known = task.draw(s, rng, f64), other = task.draw(s, rng, f64);
  const GradientReport report =
      check_gradients([&] { return model.loss_after(2, s.inner_rate, known, other); }, params);
  if (!report.ok) throw ValueError("the gradient through the steps is wrong:\n" + report.str());
  fmt::print("the gradient through steps of gradient descent agrees with differences\n");
}

// The mean error on new tasks after the steps.
double error_of(const Model& model, const Settings& s) {
  Rng rng(12345);
  double sum = 0;
  constexpr int tasks = 100;
  for (int i = 0; i < tasks; ++i) {
    const Task task(rng);
    const Examples known = task.draw(s, rng), other = task.draw(s, rng);
    Tape tape;
    sum += model.loss_after(s.inner, s.inner_rate, known, other).item();
  }
  return sum / tasks;
}

void train(const Settings& s, const std::string& settings) {
  check(s);
  const Params params(static_cast<std::uint64_t>(s.seed));
  const Model meta(params / "meta", s.units), joint(params / "joint", s.units);
  optim::Adam adam(params, {.learning_rate = s.learning_rate});
  Rng rng(static_cast<std::uint64_t>(s.seed), 1);
  Training training(params, adam, rng, {.epochs = s.epochs, .save = s.save, .settings = settings});
  while (training.next()) {
    for (Index step = 0; step < s.steps; ++step) {
      Tape tape;
      std::vector<Tensor> meta_losses, joint_losses;
      for (Index i = 0; i < s.tasks; ++i) {
        const Task task(rng);
        const Examples known = task.draw(s, rng), other = task.draw(s, rng);
        meta_losses.push_back(meta.loss_after(s.inner, s.inner_rate, known, other));
        joint_losses.push_back(joint.loss(other));
      }
      const Tensor loss = mean(stack(meta_losses));
      Gradients gradients = tape.gradient(loss + mean(stack(joint_losses)), params);
      optim::clip_by_norm(gradients, 10);
      adam.step(gradients);
      training.step(step, s.steps, loss.item());
    }
    const double error = error_of(meta, s);
    training.end_epoch(error, fmt::format("new tasks {:.4f}", error));
  }
  training.load_best();
  const double joint_error = error_of(joint, s);
  print_result(fmt::format("squared error on new tasks after {} steps", s.inner), training.best(),
               fmt::format("{:.4g} after joint training", joint_error));
  if (!(training.best() * s.factor <= joint_error))
    throw ValueError(fmt::format("that is not a factor of {} below joint training", s.factor));
}

}  // namespace

int main(int argc, char** argv) {
  Settings s;
  Program program("maml", "Learns initial values that a few steps fit to a new task.");
  program.option("--length", s.length, "steps of a sequence", 3);
  program.option("--examples", s.examples, "sequences that the steps see of a task");
  program.option("--units", s.units, "of the GRU");
  program.option("--inner", s.inner, "steps of gradient descent on a task");
  program.option("--inner-rate", s.inner_rate, "their learning rate");
  program.option("--tasks", s.tasks, "tasks of a step of meta-learning");
  program.option("--steps", s.steps, "steps of an epoch").fast(50);
  program.option("--epochs", s.epochs, "epochs").fast(3);
  program.option("--learning-rate", s.learning_rate, "of Adam");
  program.option("--factor", s.factor, "by which the error has to be below joint training's");
  program.option("--seed", s.seed, "of initial values and tasks", 0);
  program.option("--save", s.save, "file to keep the training in, and to go on from");
  return program.run(argc, argv, [&] { train(s, program.settings()); });
}
