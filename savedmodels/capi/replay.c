/* Loads a SavedModel by TensorFlow's C API, as TensorFlow Serving does, and answers the requests of a job file.
 *
 *     replay VERSION_FOLDER JOB ANSWERS
 *
 * Whole numbers are little endian, text is u32 length + bytes. The job (savedmodels/verification/job_file.py):
 *
 *     "TFDLJOB1"  u32 requests, and for each
 *         u32 feeds,   each: text operation, u32 output, tensor
 *         u32 fetches, each: text operation, u32 output
 *     tensor: u32 data type (TF_DataType), u32 dimensions, u64 each, u64 bytes, data
 *             data of strings: u64 length + bytes, one after another
 *
 * The answers: "TFDLANS1", u32 requests, and for each u32 failed; then text message, or u32 tensors and the tensors.
 *
 * Nothing in the job file is trusted: every length is compared with what is left of the file. A request that the
 * model refuses is a message among the answers; whatever else goes wrong is a line on stderr and exit code 1.
 */

#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tensorflow/c/c_api.h"
#include "tensorflow/c/tf_tstring.h"

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "the job file holds little endian numbers, and so must this machine"
#endif

#define JOB_MAGIC "TFDLJOB1"
#define ANSWERS_MAGIC "TFDLANS1"
#define MAGIC_BYTES 8
#define MAX_DIMENSIONS 8
#define MAX_TENSORS 65536 /* feeds or fetches of a request */
#define MESSAGE_BYTES 1024

typedef struct {
  const unsigned char *at;
  size_t left;
} Cursor;

typedef struct {
  uint32_t num_feeds, num_fetches;
  TF_Output *feeds, *fetches;
  TF_Tensor **values, **outputs;
} Request;

static char message[MESSAGE_BYTES];

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
}

/* Notes what is wrong; 0, for `return failed(...)`. */
#define failed(...) (note(__VA_ARGS__), 0)

/* At least one byte, zeroed: `count` may be 0. */
static void *allocate(size_t count, size_t size) { return calloc(count ? count : 1, size); }

/* ---- reading the job ---- */

static int take(Cursor *cursor, void *target, size_t bytes) {
  if (bytes > cursor->left)
    return failed("the job file ends too early: %zu bytes more are needed, %zu are left", bytes, cursor->left);
  if (bytes) memcpy(target, cursor->at, bytes);
  cursor->at += bytes;
  cursor->left -= bytes;
  return 1;
}

static int take_u32(Cursor *cursor, uint32_t *value) { return take(cursor, value, sizeof *value); }

static int take_u64(Cursor *cursor, uint64_t *value) { return take(cursor, value, sizeof *value); }

/* A new string that ends in 0; NULL if the job file or memory has no more. */
static char *take_text(Cursor *cursor) {
  uint32_t length;
  if (!take_u32(cursor, &length)) return NULL;
  if (length > cursor->left) {
    note("the job file has a text of %u bytes, %zu are left", length, cursor->left);
    return NULL;
  }
  char *text = allocate((size_t)length + 1, 1);
  if (text == NULL)
    note("no memory for a text of %u bytes", length);
  else
    take(cursor, text, length);
  return text;
}

static int take_output(Cursor *cursor, TF_Graph *graph, TF_Output *output) {
  uint32_t index;
  char *name = take_text(cursor);
  if (name == NULL) return 0;
  int is_good = take_u32(cursor, &index);
  if (is_good) {
    TF_Operation *operation = TF_GraphOperationByName(graph, name);
    if (operation == NULL)
      is_good = failed("the graph has no operation '%s'", name);
    else if (index >= (uint32_t)TF_OperationNumOutputs(operation))
      is_good = failed("operation '%s' has %d outputs, and %u is asked for", name, TF_OperationNumOutputs(operation),
                       index);
    else
      *output = (TF_Output){operation, (int)index};
  }
  free(name);
  return is_good;
}

/* The strings of a tensor that this program made are its own to free, beside the tensor. */
static void delete_fed(TF_Tensor *tensor) {
  if (tensor == NULL) return;
  if (TF_TensorType(tensor) == TF_STRING) {
    TF_TString *strings = TF_TensorData(tensor);
    for (int64_t i = 0; i < TF_TensorElementCount(tensor); ++i) TF_StringDealloc(&strings[i]);
  }
  TF_DeleteTensor(tensor);
}

static int take_strings(Cursor *cursor, TF_Tensor *tensor, size_t count, uint64_t bytes) {
  Cursor data = {cursor->at, (size_t)bytes};
  TF_TString *strings = TF_TensorData(tensor);
  /* all of them first: whatever comes, each can be freed */
  for (size_t i = 0; i < count; ++i) TF_StringInit(&strings[i]);
  for (size_t i = 0; i < count; ++i) {
    uint64_t length;
    if (!take_u64(&data, &length)) return 0;
    if (length > data.left)
      return failed("the job file has a string of %llu bytes, %zu are left", (unsigned long long)length, data.left);
    TF_StringCopy(&strings[i], (const char *)data.at, (size_t)length);
    data.at += length;
    data.left -= (size_t)length;
  }
  if (data.left) return failed("the job file has %zu bytes after the last string of a tensor", data.left);
  cursor->at += bytes;
  cursor->left -= (size_t)bytes;
  return 1;
}

static int take_tensor(Cursor *cursor, TF_Tensor **tensor) {
  uint32_t type, num_dimensions;
  int64_t dimensions[MAX_DIMENSIONS];
  uint64_t dimension, bytes;
  size_t count = 1, extent = sizeof(TF_TString);
  if (!take_u32(cursor, &type) || !take_u32(cursor, &num_dimensions)) return 0;
  if (num_dimensions > MAX_DIMENSIONS)
    return failed("the job file has a tensor of %u dimensions, at most %d are read", num_dimensions, MAX_DIMENSIONS);
  for (uint32_t i = 0; i < num_dimensions; ++i) {
    if (!take_u64(cursor, &dimension)) return 0;
    /* TensorFlow multiplies these as int64, and ends the process where that overflows; a 0 among them hides nothing */
    if (dimension != 0 && extent > INT64_MAX / dimension)
      return failed("the job file has a tensor whose dimensions are too large");
    extent *= dimension ? (size_t)dimension : 1;
    dimensions[i] = (int64_t)dimension;
    count *= (size_t)dimension;
  }
  if (!take_u64(cursor, &bytes)) return 0;
  if (bytes > cursor->left)
    return failed("the job file has a tensor of %llu bytes, %zu are left", (unsigned long long)bytes, cursor->left);

  if (type == TF_STRING) {
    /* each has its length in the file at least: the memory asked for follows from the file's size */
    if (count > bytes / sizeof(uint64_t))
      return failed("the job file has %zu strings in %llu bytes", count, (unsigned long long)bytes);
    *tensor = TF_AllocateTensor(TF_STRING, dimensions, (int)num_dimensions, count * sizeof(TF_TString));
    return *tensor ? take_strings(cursor, *tensor, count, bytes) : failed("no memory for %zu strings", count);
  }
  size_t element = type <= INT_MAX ? TF_DataTypeSize((TF_DataType)type) : 0;
  if (element == 0) return failed("the job file has a tensor of data type %u, which is not known", type);
  if (bytes / element != count || bytes % element)
    return failed("the job file has %llu bytes for %zu elements of data type %u", (unsigned long long)bytes, count,
                  type);
  *tensor = TF_AllocateTensor((TF_DataType)type, dimensions, (int)num_dimensions, (size_t)bytes);
  if (*tensor == NULL) return failed("no memory for a tensor of %llu bytes", (unsigned long long)bytes);
  return take(cursor, TF_TensorData(*tensor), (size_t)bytes);
}

static int take_request(Cursor *cursor, TF_Graph *graph, Request *request) {
  if (!take_u32(cursor, &request->num_feeds)) return 0;
  if (request->num_feeds > MAX_TENSORS) {
    uint32_t asked = request->num_feeds;
    request->num_feeds = 0; /* nothing of it is there to be freed */
    return failed("the job file has a request of %u feeds", asked);
  }
  request->feeds = allocate(request->num_feeds, sizeof *request->feeds);
  request->values = allocate(request->num_feeds, sizeof *request->values);
  if (request->feeds == NULL || request->values == NULL) return failed("no memory for %u feeds", request->num_feeds);
  for (uint32_t i = 0; i < request->num_feeds; ++i)
    if (!take_output(cursor, graph, &request->feeds[i]) || !take_tensor(cursor, &request->values[i])) return 0;

  if (!take_u32(cursor, &request->num_fetches)) return 0;
  if (request->num_fetches > MAX_TENSORS) {
    uint32_t asked = request->num_fetches;
    request->num_fetches = 0;
    return failed("the job file has a request of %u fetches", asked);
  }
  request->fetches = allocate(request->num_fetches, sizeof *request->fetches);
  request->outputs = allocate(request->num_fetches, sizeof *request->outputs);
  if (request->fetches == NULL || request->outputs == NULL)
    return failed("no memory for %u fetches", request->num_fetches);
  for (uint32_t i = 0; i < request->num_fetches; ++i)
    if (!take_output(cursor, graph, &request->fetches[i])) return 0;
  return 1;
}

static void free_request(Request *request) {
  for (uint32_t i = 0; request->values && i < request->num_feeds; ++i) delete_fed(request->values[i]);
  /* strings in these are TensorFlow's own */
  for (uint32_t i = 0; request->outputs && i < request->num_fetches; ++i)
    if (request->outputs[i]) TF_DeleteTensor(request->outputs[i]);
  free(request->feeds);
  free(request->values);
  free(request->fetches);
  free(request->outputs);
  memset(request, 0, sizeof *request);
}

/* ---- writing the answers ---- */

static int put(FILE *file, const void *data, size_t bytes) {
  if (bytes && fwrite(data, 1, bytes, file) != bytes) return failed("the answers cannot be written");
  return 1;
}

static int put_u32(FILE *file, uint32_t value) { return put(file, &value, sizeof value); }

static int put_u64(FILE *file, uint64_t value) { return put(file, &value, sizeof value); }

static int put_tensor(FILE *file, TF_Tensor *tensor) {
  int64_t count = TF_TensorElementCount(tensor);
  int num_dimensions = TF_NumDims(tensor);
  if (!put_u32(file, (uint32_t)TF_TensorType(tensor)) || !put_u32(file, (uint32_t)num_dimensions)) return 0;
  for (int i = 0; i < num_dimensions; ++i)
    if (!put_u64(file, (uint64_t)TF_Dim(tensor, i))) return 0;
  if (TF_TensorType(tensor) != TF_STRING) {
    size_t bytes = TF_TensorByteSize(tensor);
    return put_u64(file, bytes) && put(file, TF_TensorData(tensor), bytes);
  }
  const TF_TString *strings = TF_TensorData(tensor);
  uint64_t bytes = 0;
  for (int64_t i = 0; i < count; ++i) bytes += sizeof(uint64_t) + TF_StringGetSize(&strings[i]);
  if (!put_u64(file, bytes)) return 0;
  for (int64_t i = 0; i < count; ++i) {
    size_t length = TF_StringGetSize(&strings[i]);
    if (!put_u64(file, length) || !put(file, TF_StringGetDataPointer(&strings[i]), length)) return 0;
  }
  return 1;
}

static int put_failure(FILE *file, const char *text) {
  size_t length = strlen(text);
  return put_u32(file, 1) && put_u32(file, (uint32_t)length) && put(file, text, length);
}

static int put_outputs(FILE *file, const Request *request) {
  if (!put_u32(file, 0) || !put_u32(file, request->num_fetches)) return 0;
  for (uint32_t i = 0; i < request->num_fetches; ++i)
    if (!put_tensor(file, request->outputs[i])) return 0;
  return 1;
}

/* ---- the work ---- */

static int answer(Cursor *cursor, TF_Graph *graph, TF_Session *session, TF_Status *status, FILE *file) {
  uint32_t num_requests;
  if (!take_u32(cursor, &num_requests) || !put(file, ANSWERS_MAGIC, MAGIC_BYTES) || !put_u32(file, num_requests))
    return 0;
  for (uint32_t i = 0; i < num_requests; ++i) {
    Request request = {0};
    int is_good = take_request(cursor, graph, &request);
    if (is_good) {
      TF_SessionRun(session, NULL, request.feeds, request.values, (int)request.num_feeds, request.fetches,
                    request.outputs, (int)request.num_fetches, NULL, 0, NULL, status);
      is_good = TF_GetCode(status) == TF_OK ? put_outputs(file, &request) : put_failure(file, TF_Message(status));
    }
    free_request(&request);
    if (!is_good) return 0;
  }
  return cursor->left ? failed("the job file has %zu bytes after its last request", cursor->left) : 1;
}

static int replay(const char *folder, Cursor *cursor, FILE *file) {
  static const char *const tags[] = {"serve"};
  char magic[MAGIC_BYTES];
  if (!take(cursor, magic, MAGIC_BYTES)) return 0;
  if (memcmp(magic, JOB_MAGIC, MAGIC_BYTES) != 0) return failed("the job file does not begin with %s", JOB_MAGIC);
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, folder, tags, 1, graph, NULL, status);
  int is_good = session != NULL && TF_GetCode(status) == TF_OK;
  if (!is_good) note("the SavedModel cannot be loaded: %s", TF_Message(status));
  if (is_good) is_good = answer(cursor, graph, session, status, file);
  if (session != NULL) {
    TF_CloseSession(session, status);
    TF_DeleteSession(session, status);
  }
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  return is_good;
}

/* The whole file; NULL if it cannot be read. */
static unsigned char *read_file(const char *path, size_t *bytes) {
  FILE *file = fopen(path, "rb");
  unsigned char *data = NULL;
  long size = -1;
  if (file == NULL) {
    note("the job file cannot be opened");
    return NULL;
  }
  if (fseek(file, 0, SEEK_END) == 0) size = ftell(file);
  if (size < 0 || fseek(file, 0, SEEK_SET) != 0) {
    note("the job file's size cannot be found");
  } else if ((data = allocate((size_t)size, 1)) == NULL) {
    note("no memory for the %ld bytes of the job file", size);
  } else if (fread(data, 1, (size_t)size, file) != (size_t)size) {
    note("the job file cannot be read");
    free(data);
    data = NULL;
  }
  fclose(file);
  *bytes = (size_t)(size < 0 ? 0 : size);
  return data;
}

int main(int num_arguments, char **arguments) {
  if (num_arguments != 4) {
    fprintf(stderr, "usage: replay VERSION_FOLDER JOB ANSWERS\n");
    return 2;
  }
  size_t bytes = 0;
  unsigned char *job = read_file(arguments[2], &bytes);
  int is_good = job != NULL;
  if (is_good) {
    FILE *file = fopen(arguments[3], "wb");
    if (file == NULL) {
      is_good = failed("the answers cannot be opened for writing");
    } else {
      Cursor cursor = {job, bytes};
      is_good = replay(arguments[1], &cursor, file);
      /* a full disk may show only here */
      if (fclose(file) != 0 && is_good) is_good = failed("the answers cannot be written");
    }
  }
  free(job);
  for (char *at = message; *at; ++at)
    if (*at == '\n' || *at == '\r') *at = ' '; /* one line, the last on stderr, is all of it */
  if (!is_good) fprintf(stderr, "%s\n", message);
  return is_good ? 0 : 1;
}
