#pragma once

/// All of Reel.
#include <reel/autograd/ops.h>
#include <reel/autograd/recurrent.h>
#include <reel/autograd/tape.h>
#include <reel/autograd/threads.h>
#include <reel/datasets/text.h>
#include <reel/datasets/windows.h>
#include <reel/nn/bidirectional.h>
#include <reel/nn/dropout.h>
#include <reel/nn/embedding.h>
#include <reel/nn/generate.h>
#include <reel/nn/gru.h>
#include <reel/nn/init.h>
#include <reel/nn/layer_norm.h>
#include <reel/nn/linear.h>
#include <reel/nn/lstm.h>
#include <reel/nn/rnn.h>
#include <reel/nn/safetensors.h>
#include <reel/nn/stacked.h>
#include <reel/nn/unroll.h>
#include <reel/optim/adam.h>
#include <reel/optim/adamw.h>
#include <reel/optim/clip.h>
#include <reel/optim/rmsprop.h>
#include <reel/optim/schedule.h>
#include <reel/optim/sgd.h>
