/* Attention of one new token per row over the row's own part of the cache.

   Compiled for one shape: GROUPS query heads to a key/value head, SIZE numbers to a query and key,
   VALUES to a value, BF16 defined where they are bfloat16 and not float32. Sums are float32, and the
   softmax is taken tile by tile, as in FlashAttention (arXiv 2205.14135, algorithm 1). */

#include <math.h>
#include <stdint.h>
#include <string.h>

#define TILE 64

#ifdef BF16
typedef uint16_t number;

static inline float wide(number x) {
    const uint32_t bits = (uint32_t)x << 16;
    float result;
    memcpy(&result, &bits, sizeof bits);
    return result;
}

static inline number narrow(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    if (x != x) return 0x7fc0;
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16; /* to the nearest, ties to even */
}
#else
typedef float number;

static inline float wide(number x) { return x; }
static inline number narrow(float x) { return x; }
#endif

/* The GROUPS query heads of one row over the tokens that its mask shows. */
static void attend_head(const number *queries, long query_step, const number *keys, long key_step,
                        const number *values, long value_step, const uint8_t *mask, long tokens,
                        float scale, number *out) {
    float query[GROUPS][SIZE], sum[GROUPS][VALUES] = {{0}}, scores[GROUPS][TILE];
    float largest[GROUPS], weight[GROUPS] = {0};
    for (int g = 0; g < GROUPS; g++) {
        largest[g] = -INFINITY;
        for (int d = 0; d < SIZE; d++) query[g][d] = wide(queries[g * query_step + d]) * scale;
    }
    long first = 0;
    while (tokens > 0 && !mask[tokens - 1]) tokens--;
    while (first < tokens && !mask[first]) first++;
    for (long start = first; start < tokens; start += TILE) {
        const int count = tokens - start < TILE ? tokens - start : TILE;
        for (int t = 0; t < count; t++) {
            float key[SIZE];
            for (int d = 0; d < SIZE; d++) key[d] = wide(keys[(start + t) * key_step + d]);
            for (int g = 0; g < GROUPS; g++) {
                float score = 0;
                for (int d = 0; d < SIZE; d++) score += query[g][d] * key[d];
                scores[g][t] = mask[start + t] ? score : -INFINITY;
            }
        }
        for (int g = 0; g < GROUPS; g++) {
            float top = largest[g], total = 0;
            for (int t = 0; t < count; t++) top = scores[g][t] > top ? scores[g][t] : top;
            const float base = top == -INFINITY ? 0 : top; /* all of this tile may be masked */
            const float shrink = expf(largest[g] - base);
            for (int t = 0; t < count; t++) {
                scores[g][t] = expf(scores[g][t] - base);
                total += scores[g][t];
            }
            largest[g] = top;
            weight[g] = weight[g] * shrink + total;
            for (int d = 0; d < VALUES; d++) sum[g][d] *= shrink;
        }
        for (int t = 0; t < count; t++) {
            float value[VALUES];
            for (int d = 0; d < VALUES; d++) value[d] = wide(values[(start + t) * value_step + d]);
            for (int g = 0; g < GROUPS; g++)
                for (int d = 0; d < VALUES; d++) sum[g][d] += scores[g][t] * value[d];
        }
    }
    for (int g = 0; g < GROUPS; g++)
        for (int d = 0; d < VALUES; d++) out[g * VALUES + d] = narrow(sum[g][d] / weight[g]);
}

/* `strides` in numbers: of rows and heads of the queries; of rows, heads and tokens of the keys; the
   same of the values; of rows of the mask. `out` is (rows, heads x GROUPS, VALUES) without gaps. */
void attend(const number *queries, const number *keys, const number *values, const uint8_t *mask,
            number *out, long rows, long heads, long tokens, const long *strides, float scale,
            int threads) {
    const long *q = strides, *k = strides + 2, *v = strides + 5, *m = strides + 8;
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (long i = 0; i < rows * heads; i++) {
        const long row = i / heads, head = i % heads;
        attend_head(queries + row * q[0] + head * GROUPS * q[1], q[1],
                    keys + row * k[0] + head * k[1], k[2], values + row * v[0] + head * v[1], v[2],
                    mask + row * m[0], tokens, scale, out + i * GROUPS * VALUES);
    }
}
