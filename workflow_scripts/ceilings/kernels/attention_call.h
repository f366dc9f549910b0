/* One call of the operator, as every kernel of it takes it. */
#ifndef CEILINGS_ATTENTION_CALL_H
#define CEILINGS_ATTENTION_CALL_H

#include <stdint.h>

/* query, key, value: (batch, sequence, hidden), a row `stride` numbers after the one before it, heads beside each other.
 * mask: (batch, sequence), zero where a token is padding, or NULL. result: (batch, sequence, hidden), in one piece. */
struct call {
    const char *query, *key, *value;
    const int64_t *mask;
    void *result;
    int64_t batch, sequence, hidden, heads, stride;
    int failed; /* set by a kernel that got no memory */
};

#endif
