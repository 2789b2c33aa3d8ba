// Columns: rows gathered from them, and dictionaries of their values.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace {

constexpr int64_t kAhead = 24;  // rows between a prefetch and its use

// 0, -1 where a row is not there, or i + 1 where row i holds a value outside of [0, limit). A limit below 0 is none.
template <typename From, typename To>
int64_t gather(int64_t num_parts, const void* const* parts, const int64_t* part_rows, int64_t width, int64_t limit,
               int64_t count, const int32_t* part_of, const int32_t* row_of, To* out, int64_t stride) {
  const uint64_t below = static_cast<uint64_t>(limit);  // of no limit: every value is below
  for (int64_t i = 0; i < count; ++i) {
    if (i + kAhead < count) {
      const int64_t part = part_of[i + kAhead];  // checked here, too: a pointer is read
      if (part >= 0 && part < num_parts) {
        __builtin_prefetch(static_cast<const From*>(parts[part]) + static_cast<int64_t>(row_of[i + kAhead]) * width);
      }
    }
    const int64_t part = part_of[i], row = row_of[i];
    if (part < 0 || part >= num_parts || row < 0 || row >= part_rows[part]) return -1;
    const From* from = static_cast<const From*>(parts[part]) + row * width;
    bool beyond = false;
    for (int64_t k = 0; k < width; ++k) {
      if constexpr (std::is_integral_v<From>) beyond |= static_cast<uint64_t>(from[k]) >= below;
      out[i * stride + k] = static_cast<To>(from[k]);
    }
    if (beyond && limit >= 0) return i + 1;
  }
  return 0;
}

template <typename To>
int64_t gather_kind(int32_t kind, int64_t num_parts, const void* const* parts, const int64_t* part_rows, int64_t width,
                    int64_t limit, int64_t count, const int32_t* part_of, const int32_t* row_of, To* out,
                    int64_t stride) {
  switch (kind) {
    case 0: return gather<uint8_t, To>(num_parts, parts, part_rows, width, limit, count, part_of, row_of, out, stride);
    case 1: return gather<uint16_t, To>(num_parts, parts, part_rows, width, limit, count, part_of, row_of, out, stride);
    case 2: return gather<int32_t, To>(num_parts, parts, part_rows, width, limit, count, part_of, row_of, out, stride);
    case 3: return gather<int64_t, To>(num_parts, parts, part_rows, width, limit, count, part_of, row_of, out, stride);
    case 4: return gather<float, To>(num_parts, parts, part_rows, width, limit, count, part_of, row_of, out, stride);
    default: return -1;
  }
}

}  // namespace

// Any rows of one column that lies in parts: row row_of[i] of part part_of[i] -> out[i * stride ...]. kinds: 0 uint8,
// 1 uint16, 2 int32, 3 int64, 4 float32; out_kind: 2, 3 or 4 of these, and 4 for floats alone. Integers must be in
// [0, limit), unless it is below 0.
// Returns 0; -1 where a row is not there or a kind is unknown; or i + 1 where row i holds another value.
extern "C" __attribute__((visibility("default"))) int64_t tfdlrm_gather_rows(
    int64_t num_parts, const void* const* parts, const int64_t* part_rows, int32_t kind, int64_t width, int64_t limit,
    int64_t count, const int32_t* part_of, const int32_t* row_of, int32_t out_kind, void* out, int64_t stride) {
  if (width < 1 || stride < width || count < 0) return -1;
  if (kind == 4 && out_kind != 4) return -1;  // not every float has an integer
  switch (out_kind) {
    case 2:
      return gather_kind(kind, num_parts, parts, part_rows, width, limit, count, part_of, row_of,
                         static_cast<int32_t*>(out), stride);
    case 3:
      return gather_kind(kind, num_parts, parts, part_rows, width, limit, count, part_of, row_of,
                         static_cast<int64_t*>(out), stride);
    case 4:
      return gather_kind(kind, num_parts, parts, part_rows, width, limit, count, part_of, row_of,
                         static_cast<float*>(out), stride);
    default:
      return -1;
  }
}

namespace {

// Distinct keys in order of first appearance, in a table with open addressing. A slot holds its key, so that a look-up
// is one line of memory, and a batch's lines are fetched before the first of them is needed.
template <typename Key>
class Dictionary {
 public:
  explicit Dictionary(int64_t budget) : budget_(budget) {}
  Dictionary(const Dictionary&) = delete;
  Dictionary& operator=(const Dictionary&) = delete;
  ~Dictionary() {
    std::free(slots_);
    std::free(values_);
  }

  // Places of n keys, new ones at the end. counts, if any, has room for all keys there may be. Returns 0, or -1 where
  // the table would outgrow its budget; the keys before that one are in it then.
  int64_t add(const Key* keys, int64_t n, int32_t* places, int64_t* counts) {
    for (int64_t start = 0; start < n; start += kBatch) {
      const int64_t batch = n - start < kBatch ? n - start : kBatch;
      if (size_ + batch > num_slots_ / 2 && !grow(size_ + batch)) return -1;
      uint64_t at[kBatch];
      locate(keys + start, batch, at);
      for (int64_t i = 0; i < batch; ++i) {
        Slot* slot = find_slot(keys[start + i], at[i]);
        if (slot->place < 0) {
          slot->key = values_[size_] = keys[start + i];
          slot->place = static_cast<int32_t>(size_++);
        }
        places[start + i] = slot->place;
        if (counts != nullptr) ++counts[slot->place];
      }
    }
    return 0;
  }

  // Places of n keys, -1 where one is not there.
  void find(const Key* keys, int64_t n, int32_t* places) const {
    for (int64_t start = 0; start < n; start += kBatch) {
      const int64_t batch = n - start < kBatch ? n - start : kBatch;
      if (num_slots_ == 0) {
        std::memset(places + start, 0xFF, batch * sizeof(int32_t));
        continue;
      }
      uint64_t at[kBatch];
      locate(keys + start, batch, at);
      for (int64_t i = 0; i < batch; ++i) places[start + i] = find_slot(keys[start + i], at[i])->place;
    }
  }

  int64_t size() const { return size_; }
  void values(Key* out) const {
    if (size_ > 0) std::memcpy(out, values_, size_ * sizeof(Key));
  }

 private:
  static constexpr int64_t kBatch = 64;
  static constexpr int64_t kFewestSlots = 1 << 10;

  struct Slot {
    Key key;
    int32_t place;  // -1: free
  };

  // The upper bits of a product depend on all bits of the key.
  static uint64_t mixed(Key key) {
    uint64_t x = static_cast<uint64_t>(key);
    x ^= x >> 32;
    return x * 0x9E3779B97F4A7C15u;
  }

  void locate(const Key* keys, int64_t n, uint64_t* at) const {
    for (int64_t i = 0; i < n; ++i) {
      at[i] = mixed(keys[i]) >> shift_;
      __builtin_prefetch(slots_ + at[i]);
    }
  }

  // The key's slot, or the free one where it belongs: half of the slots are free, so there is one.
  Slot* find_slot(Key key, uint64_t at) const {
    while (slots_[at].place >= 0 && slots_[at].key != key) at = (at + 1) & (num_slots_ - 1);
    return slots_ + at;
  }

  bool grow(int64_t needed) {
    int64_t num_slots = num_slots_ > 0 ? num_slots_ : kFewestSlots;
    int shift = 64 - __builtin_ctzll(num_slots);
    while (needed > num_slots / 2) {
      num_slots *= 2;
      --shift;
    }
    const int64_t slot_bytes = num_slots * sizeof(Slot), value_bytes = num_slots / 2 * sizeof(Key);
    // the old slots stand beside the new ones for a while
    const int64_t bytes = slot_bytes + value_bytes + num_slots_ * static_cast<int64_t>(sizeof(Slot));
    if (bytes > budget_ || num_slots / 2 > INT32_MAX) return false;
    Slot* slots = static_cast<Slot*>(std::malloc(slot_bytes));
    Key* values = static_cast<Key*>(slots == nullptr ? nullptr : std::realloc(values_, value_bytes));
    if (values == nullptr) {
      std::free(slots);
      return false;
    }
    std::memset(static_cast<void*>(slots), 0xFF, slot_bytes);
    std::free(slots_);
    slots_ = slots;
    values_ = values;
    num_slots_ = num_slots;
    shift_ = shift;
    for (int64_t start = 0; start < size_; start += kBatch) {
      const int64_t batch = size_ - start < kBatch ? size_ - start : kBatch;
      uint64_t at[kBatch];
      locate(values_ + start, batch, at);
      for (int64_t i = 0; i < batch; ++i) {
        Slot* slot = find_slot(values_[start + i], at[i]);
        slot->key = values_[start + i];
        slot->place = static_cast<int32_t>(start + i);
      }
    }
    return true;
  }

  const int64_t budget_;
  Slot* slots_ = nullptr;
  Key* values_ = nullptr;
  int64_t num_slots_ = 0, size_ = 0;
  int shift_ = 0;
};

}  // namespace

// Functions of dictionaries of uint32 and of int64 keys: new, of at most `budget` bytes (null where there is no memory);
// free; add (0, or -1 beyond the budget) and find, see above; size; values, which writes that many keys.
#define TFDLRM_DICTIONARY(NAME, KEY)                                                                                  \
  extern "C" __attribute__((visibility("default"))) void* tfdlrm_##NAME##_new(int64_t budget) {                       \
    return new (std::nothrow) Dictionary<KEY>(budget);                                                                \
  }                                                                                                                   \
  extern "C" __attribute__((visibility("default"))) void tfdlrm_##NAME##_free(void* dictionary) {                     \
    delete static_cast<Dictionary<KEY>*>(dictionary);                                                                 \
  }                                                                                                                   \
  extern "C" __attribute__((visibility("default"))) int64_t tfdlrm_##NAME##_add(void* dictionary, const KEY* keys,    \
                                                                                int64_t n, int32_t* places,           \
                                                                                int64_t* counts) {                    \
    return static_cast<Dictionary<KEY>*>(dictionary)->add(keys, n, places, counts);                                   \
  }                                                                                                                   \
  extern "C" __attribute__((visibility("default"))) void tfdlrm_##NAME##_find(const void* dictionary,                 \
                                                                              const KEY* keys, int64_t n,             \
                                                                              int32_t* places) {                      \
    static_cast<const Dictionary<KEY>*>(dictionary)->find(keys, n, places);                                           \
  }                                                                                                                   \
  extern "C" __attribute__((visibility("default"))) int64_t tfdlrm_##NAME##_size(const void* dictionary) {            \
    return static_cast<const Dictionary<KEY>*>(dictionary)->size();                                                   \
  }                                                                                                                   \
  extern "C" __attribute__((visibility("default"))) void tfdlrm_##NAME##_values(const void* dictionary, KEY* out) {   \
    static_cast<const Dictionary<KEY>*>(dictionary)->values(out);                                                     \
  }

TFDLRM_DICTIONARY(dictionary32, uint32_t)
TFDLRM_DICTIONARY(dictionary64, int64_t)
