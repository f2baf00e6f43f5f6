package proxy

import (
	"encoding/binary"
	"math/bits"
	"slices"
	"strings"
	"sync"
	"time"
)

// namespacesMax is how many namespaces are counted each by itself. Of more, those that were used
// longest ago are counted together, under Others.
const namespacesMax = 1024

// Others is the name that stands for all namespaces that are not counted by themselves. No
// namespace has it.
const Others = ""

// Buckets is how many a histogram of times has: bucket i counts what took less than 2^i
// microseconds and not less than half of that, the last one all that took longer.
const Buckets = 26

// Counts are what a proxy did for one namespace, since it was started, for calls of one sort.
type Counts struct {
	Calls  uint64          // that were answered
	Errors uint64          // of them, with an error, but for those that name what is not there
	Bytes  uint64          // of objects that were put, or read
	Micros uint64          // all calls together took
	Times  [Buckets]uint64 // calls by how long they took
}

// NamespaceStats are the counts of one namespace.
type NamespaceStats struct {
	Namespace string
	Read      Counts // get
	Write     Counts // put, put-if
	Other     Counts // all else
}

// bucket is the place of a time in a histogram.
func bucket(d time.Duration) int {
	return min(bits.Len64(uint64(max(d.Microseconds(), 0))), Buckets-1)
}

func (c *Counts) note(bytes int, took time.Duration, bad bool) {
	c.Calls++
	if bad {
		c.Errors++
	}
	c.Bytes += uint64(bytes)
	c.Micros += uint64(max(took.Microseconds(), 0))
	c.Times[bucket(took)]++
}

// Add adds other counts.
func (c *Counts) Add(o *Counts) {
	c.Calls += o.Calls
	c.Errors += o.Errors
	c.Bytes += o.Bytes
	c.Micros += o.Micros
	for i := range c.Times {
		c.Times[i] += o.Times[i]
	}
}

// counters count by namespace.
type counters struct {
	mu    sync.Mutex
	clock uint64
	by    map[string]*counted
}

type counted struct {
	NamespaceStats
	used uint64 // the clock at its last use
}

func (c *counters) note(op uint16, namespace string, bytes int, took time.Duration, bad bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := c.ofLocked(namespace)
	switch op {
	case opGet:
		n.Read.note(bytes, took, bad)
	case opPut, opPutIf:
		n.Write.note(bytes, took, bad)
	default:
		n.Other.note(bytes, took, bad)
	}
}

func (c *counters) ofLocked(namespace string) *counted {
	c.clock++
	n := c.by[namespace]
	if n == nil {
		if len(c.by) >= namespacesMax {
			c.foldLocked()
		}
		n = &counted{NamespaceStats: NamespaceStats{Namespace: namespace}}
		c.by[namespace] = n
	}
	n.used = c.clock
	return n
}

// foldLocked counts the quarter that was used longest ago under Others, so that the look at all of
// them is seldom.
func (c *counters) foldLocked() {
	all := make([]*counted, 0, len(c.by))
	others := c.by[Others]
	for _, n := range c.by {
		if n != others {
			all = append(all, n)
		}
	}
	if others == nil {
		others = &counted{}
		c.by[Others] = others
	}
	slices.SortFunc(all, func(a, b *counted) int { return int(int64(a.used - b.used)) })
	for _, n := range all[:namespacesMax/4] {
		others.Read.Add(&n.Read)
		others.Write.Add(&n.Write)
		others.Other.Add(&n.Other)
		delete(c.by, n.Namespace)
	}
}

// all returns the counts, sorted by namespace.
func (c *counters) all() []NamespaceStats {
	c.mu.Lock()
	list := make([]NamespaceStats, 0, len(c.by))
	for _, n := range c.by {
		list = append(list, n.NamespaceStats)
	}
	c.mu.Unlock()
	slices.SortFunc(list, func(a, b NamespaceStats) int { return strings.Compare(a.Namespace, b.Namespace) })
	return list
}

// statsLeast is the fewest bytes that the counts of one namespace take.
const statsLeast = 1 + 3*(4+Buckets)*8

func appendStats(dst []byte, s *NamespaceStats) []byte {
	dst = appendName(dst, s.Namespace)
	for _, c := range []*Counts{&s.Read, &s.Write, &s.Other} {
		for _, v := range []uint64{c.Calls, c.Errors, c.Bytes, c.Micros} {
			dst = binary.LittleEndian.AppendUint64(dst, v)
		}
		for _, v := range c.Times {
			dst = binary.LittleEndian.AppendUint64(dst, v)
		}
	}
	return dst
}

func decodeStats(count uint32, b []byte) ([]NamespaceStats, error) {
	if int64(count)*statsLeast > int64(len(b)) {
		return nil, errBytes
	}
	f := read(b)
	list := make([]NamespaceStats, count)
	for i := range list {
		s := &list[i]
		s.Namespace = f.name()
		for _, c := range []*Counts{&s.Read, &s.Write, &s.Other} {
			c.Calls, c.Errors, c.Bytes, c.Micros = f.U64(), f.U64(), f.U64(), f.U64()
			for k := range c.Times {
				c.Times[k] = f.U64()
			}
		}
	}
	return list, f.End()
}

// Quantile is a time that a part of the calls, from 0 to 1, took less than: the upper end of a
// bucket. Without calls it is 0.
func (c *Counts) Quantile(part float64) time.Duration {
	var all, sum uint64
	for _, n := range c.Times {
		all += n
	}
	for i, n := range c.Times {
		if sum += n; n > 0 && float64(sum) >= part*float64(all) {
			return time.Microsecond << i
		}
	}
	return 0
}
