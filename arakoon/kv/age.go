package kv

import (
	"time"

	"openvstorage/arakoon"
	"openvstorage/internal/wire"
)

// aged is a request that reads: all that was answered before asOf is seen by it. What is found
// out before the read begins holds for the read.
type aged struct {
	reads bool
	asOf  time.Time
	known bool
}

// ages finds out how old what a request reads may be.
func ages(g *Group, r *wire.Incoming) aged {
	if r.Op < OpGet || r.Op > OpSettle {
		return aged{}
	}
	b := reader{b: r.Header}
	if b.consistency() == arakoon.Consistent {
		return aged{true, time.Now(), true}
	}
	asOf, known := g.Node.AsOf()
	return aged{true, asOf, known}
}

// put puts the age into the head of the answer, rounded up to whole milliseconds.
func (a aged) put(header []byte) {
	if !a.reads || !a.known || len(header) < answerHead {
		return
	}
	header[1] |= answerAged
	age := (time.Since(a.asOf) + time.Millisecond - 1).Milliseconds()
	le.PutUint32(header[4:], uint32(min(max(age, 0), 1<<32-1)))
}
