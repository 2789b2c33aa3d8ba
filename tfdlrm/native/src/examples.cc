// Rows of columns as TFRecords of tf.train.Example: bytes as protobuf's deterministic serialization has them.
#include <array>
#include <cstdint>
#include <cstring>

namespace {

enum Kind : int32_t { kUint8, kUint16, kInt32, kInt64, kFloat, kText };

constexpr std::array<std::array<uint32_t, 256>, 8> crc_tables() {
  std::array<std::array<uint32_t, 256>, 8> tables{};
  for (uint32_t byte = 0; byte < 256; ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) ? 0x82f63b78u : 0u);  // Castagnoli, reflected
    tables[0][byte] = crc;
  }
  for (int k = 1; k < 8; ++k) {
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const uint32_t crc = tables[k - 1][byte];
      tables[k][byte] = (crc >> 8) ^ tables[0][crc & 255];
    }
  }
  return tables;
}

constexpr auto kCrc = crc_tables();

uint32_t masked_crc(const uint8_t* data, int64_t size) {
  uint32_t crc = ~0u;
  for (; size >= 8; data += 8, size -= 8) {
    uint64_t word;
    std::memcpy(&word, data, 8);
    word ^= crc;
    crc = 0;
    for (int k = 0; k < 8; ++k) crc ^= kCrc[7 - k][(word >> (8 * k)) & 255];
  }
  for (; size > 0; ++data, --size) crc = (crc >> 8) ^ kCrc[0][(crc ^ *data) & 255];
  crc = ~crc;
  return ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
}

int64_t varint_size(uint64_t value) {
  int64_t size = 1;
  while (value >= 128) {
    value >>= 7;
    ++size;
  }
  return size;
}

uint8_t* put_varint(uint8_t* out, uint64_t value) {
  while (value >= 128) {
    *out++ = static_cast<uint8_t>(value | 128);
    value >>= 7;
  }
  *out++ = static_cast<uint8_t>(value);
  return out;
}

uint8_t* put_head(uint8_t* out, uint8_t tag, int64_t size) {
  *out++ = tag;
  return put_varint(out, static_cast<uint64_t>(size));
}

// Of a field with a length in front.
int64_t field_size(int64_t size) { return 1 + varint_size(static_cast<uint64_t>(size)) + size; }

struct Columns {
  int64_t count;
  const int32_t* kinds;
  const void* const* values;
  const int64_t* num_values;           // that are there
  const int64_t* widths;               // values a row; -1 where `offsets` say it
  const int64_t* const* offsets;       // [rows + 1] of bags of any length
  const int64_t* const* text_offsets;  // [num_values + 1] of texts
  const int64_t* text_bytes;           // that are there
  const uint8_t* const* keys;          // field 1 of a map's entry, tag and length included
  const int64_t* key_sizes;
};

uint64_t whole_number(const Columns& c, int64_t column, int64_t place) {
  switch (c.kinds[column]) {
    case kUint8: return static_cast<const uint8_t*>(c.values[column])[place];
    case kUint16: return static_cast<const uint16_t*>(c.values[column])[place];
    case kInt32: return static_cast<uint64_t>(int64_t{static_cast<const int32_t*>(c.values[column])[place]});
    default: return static_cast<uint64_t>(static_cast<const int64_t*>(c.values[column])[place]);
  }
}

// Values of a row, [begin, end); false where they are not all there.
bool span(const Columns& c, int64_t column, int64_t row, int64_t* begin, int64_t* end) {
  const int64_t width = c.widths[column];
  *begin = width < 0 ? c.offsets[column][row] : row * width;
  *end = width < 0 ? c.offsets[column][row + 1] : (row + 1) * width;
  if (*begin < 0 || *end < *begin || *end > c.num_values[column]) return false;
  if (c.kinds[column] != kText) return true;
  for (int64_t place = *begin; place < *end; ++place) {
    const int64_t* at = c.text_offsets[column] + place;
    if (at[0] < 0 || at[1] < at[0] || at[1] > c.text_bytes[column]) return false;
  }
  return true;
}

// Bytes of the list message, and of its packed values where they are packed.
int64_t list_size(const Columns& c, int64_t column, int64_t begin, int64_t end, int64_t* packed) {
  int64_t size = 0;
  if (c.kinds[column] == kText) {
    for (int64_t place = begin; place < end; ++place) {
      size += field_size(c.text_offsets[column][place + 1] - c.text_offsets[column][place]);
    }
    return size;
  }
  if (c.kinds[column] == kFloat) {
    size = 4 * (end - begin);
  } else {
    for (int64_t place = begin; place < end; ++place) size += varint_size(whole_number(c, column, place));
  }
  *packed = size;
  return size == 0 ? 0 : field_size(size);
}

}  // namespace

// Rows [first, last) as records, one after another, as many as `capacity` holds. kinds: 0 uint8, 1 uint16, 2 int32,
// 3 int64, 4 float32, 5 text. `sizes`: room for 2 * count numbers. Returns the bytes, and in `done` the rows; -1 where a
// kind is unknown or a row's values are not there.
extern "C" __attribute__((visibility("default"))) int64_t tfdlrm_write_examples(
    int64_t count, const int32_t* kinds, const void* const* values, const int64_t* num_values, const int64_t* widths,
    const int64_t* const* offsets, const int64_t* const* text_offsets, const int64_t* text_bytes,
    const uint8_t* const* keys, const int64_t* key_sizes, int64_t first, int64_t last, int64_t* sizes, uint8_t* out,
    int64_t capacity, int64_t* done) {
  const Columns c{count, kinds, values, num_values, widths, offsets, text_offsets, text_bytes, keys, key_sizes};
  for (int64_t column = 0; column < count; ++column) {
    if (kinds[column] < kUint8 || kinds[column] > kText) return -1;
  }
  uint8_t* at = out;
  *done = 0;
  for (int64_t row = first; row < last; ++row) {
    int64_t features = 0;
    for (int64_t column = 0; column < count; ++column) {
      int64_t begin, end;
      if (!span(c, column, row, &begin, &end)) return -1;
      int64_t* own = sizes + 2 * column;
      own[0] = list_size(c, column, begin, end, own + 1);
      features += field_size(key_sizes[column] + field_size(field_size(own[0])));
    }
    const int64_t size = field_size(features);
    if (at - out + size + 16 > capacity) break;
    uint8_t* const head = at;
    const uint64_t length = static_cast<uint64_t>(size);
    std::memcpy(head, &length, 8);
    const uint32_t length_crc = masked_crc(head, 8);
    std::memcpy(head + 8, &length_crc, 4);
    uint8_t* const body = head + 12;
    at = put_head(body, 0x0a, features);  // Example.features
    for (int64_t column = 0; column < count; ++column) {
      int64_t begin, end;
      span(c, column, row, &begin, &end);
      const int64_t list = sizes[2 * column], packed = sizes[2 * column + 1];
      const int64_t feature = field_size(list);
      at = put_head(at, 0x0a, key_sizes[column] + field_size(feature));  // Features.feature, an entry of the map
      std::memcpy(at, keys[column], key_sizes[column]);
      at = put_head(at + key_sizes[column], 0x12, feature);
      const int32_t kind = kinds[column];
      at = put_head(at, kind == kText ? 0x0a : kind == kFloat ? 0x12 : 0x1a, list);
      if (kind == kText) {
        for (int64_t place = begin; place < end; ++place) {
          const int64_t* bounds = text_offsets[column] + place;
          at = put_head(at, 0x0a, bounds[1] - bounds[0]);
          std::memcpy(at, static_cast<const uint8_t*>(values[column]) + bounds[0], bounds[1] - bounds[0]);
          at += bounds[1] - bounds[0];
        }
      } else if (list > 0) {
        at = put_head(at, 0x0a, packed);
        if (kind == kFloat) {
          std::memcpy(at, static_cast<const float*>(values[column]) + begin, packed);
          at += packed;
        } else {
          for (int64_t place = begin; place < end; ++place) at = put_varint(at, whole_number(c, column, place));
        }
      }
    }
    const uint32_t body_crc = masked_crc(body, size);
    std::memcpy(at, &body_crc, 4);
    at += 4;
    ++*done;
  }
  return at - out;
}
