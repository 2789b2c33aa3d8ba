// TensorFlow ops around the kernels: they check every shape and every index, choose the work of each thread, and hold
// the locks. One translation unit, because TensorFlow's headers take longest to compile.
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "kernels.h"
#include "tensorflow/core/framework/op.h"
#include "tensorflow/core/framework/op_kernel.h"
#include "tensorflow/core/framework/resource_mgr.h"
#include "tensorflow/core/framework/resource_var.h"
#include "tensorflow/core/framework/shape_inference.h"

namespace tfdlrm {
namespace {

using tensorflow::DataType;
using tensorflow::OpInputList;
using tensorflow::OpKernel;
using tensorflow::OpKernelConstruction;
using tensorflow::OpKernelContext;
using tensorflow::Tensor;
using tensorflow::TensorShape;
using tensorflow::Var;
using tensorflow::core::RefCountPtr;
using tensorflow::errors::InvalidArgument;
using tensorflow::shape_inference::InferenceContext;
using tensorflow::shape_inference::ShapeHandle;
using Status = absl::Status;

#include "threads.inc"
#include "rows_op.inc"
#include "variables.inc"
#include "lookup_op.inc"
#include "sort.inc"
#include "update_op.inc"
#include "dense_ops.inc"
#include "cross_ops.inc"
#include "interaction_ops.inc"

}  // namespace
}  // namespace tfdlrm
