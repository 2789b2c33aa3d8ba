/* Gives the C program's reader a job file that was changed at random, again and again, in one process.
 *
 *     fuzz_replay VERSION_FOLDER JOB ROUNDS
 *
 * Built with the sanitizers, which end the process at the first byte that is read or written out of bounds. Prints how
 * many rounds were answered and how many refused. The same rounds every time.
 */

#define main replay_main
#include "replay.c"
#undef main

static uint64_t state = 20190531;

static uint64_t draw(uint64_t limit) {
  state ^= state << 13;
  state ^= state >> 7;
  state ^= state << 17;
  return state % limit;
}

/* Lengths and counts at which arithmetic overflows. */
static const uint64_t EXTREMES[] = {
    0, 1, 2, 7, 255, 65537, INT32_MAX, UINT32_MAX, INT64_MAX, (uint64_t)INT64_MAX + 1, UINT64_MAX, UINT64_MAX - 7,
};

static size_t change(unsigned char *job, size_t bytes) {
  uint64_t kind = draw(4), value = EXTREMES[draw(sizeof EXTREMES / sizeof *EXTREMES)];
  size_t width = draw(2) ? 4 : 8, at = draw(bytes - width);
  if (kind == 0) return draw(bytes);
  if (kind == 1)
    job[at] ^= (unsigned char)(1u << draw(8));
  else if (kind == 2)
    memcpy(job + at, &value, width);
  else
    job[at] = (unsigned char)draw(32); /* types, dimensions, lengths */
  return bytes;
}

int main(int num_arguments, char **arguments) {
  static const char *const tags[] = {"serve"};
  if (num_arguments != 4) return 2;
  size_t bytes = 0;
  unsigned char *job = read_file(arguments[2], &bytes);
  FILE *file = fopen("/dev/null", "wb");
  TF_Status *status = TF_NewStatus();
  TF_Graph *graph = TF_NewGraph();
  TF_SessionOptions *options = TF_NewSessionOptions();
  TF_Session *session = TF_LoadSessionFromSavedModel(options, NULL, arguments[1], tags, 1, graph, NULL, status);
  if (job == NULL || file == NULL || session == NULL) return 1;
  int answered = 0, refused = 0;
  for (int i = 0; i < atoi(arguments[3]); ++i) {
    /* exactly as large as it is, so that one byte too many is noticed */
    unsigned char *copy = malloc(bytes);
    memcpy(copy, job, bytes);
    size_t left = change(copy, bytes);
    unsigned char *exact = malloc(left ? left : 1);
    memcpy(exact, copy, left);
    free(copy);
    Cursor cursor = {exact, left};
    char magic[MAGIC_BYTES];
    if (take(&cursor, magic, MAGIC_BYTES) && answer(&cursor, graph, session, status, file))
      ++answered;
    else
      ++refused;
    free(exact);
  }
  printf("%d answered, %d refused\n", answered, refused);
  TF_CloseSession(session, status);
  TF_DeleteSession(session, status);
  TF_DeleteSessionOptions(options);
  TF_DeleteGraph(graph);
  TF_DeleteStatus(status);
  fclose(file);
  free(job);
  return 0;
}
