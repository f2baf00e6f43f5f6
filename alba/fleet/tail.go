package fleet

import (
	"math"
	"slices"
	"sync/atomic"
	"time"
)

// Sizes of requests, for which times are kept apart.
const (
	sizeClasses = 6
	sizeFirst   = 4 << 10 // bytes of the first class; each of the others has four times as many
)

// sizeClass returns the class of a request of so many bytes.
func sizeClass(bytes int) (class int) {
	for most := sizeFirst; bytes > most && class < sizeClasses-1; most *= 4 {
		class++
	}
	return class
}

// Buckets of a tail: the first is for what took tailFirst or less, each of the others for what
// took up to 2^(1/4) times as long, the last (about half a minute) for all that took longer.
const (
	tailBuckets = 84
	tailFirst   = 16 * time.Microsecond
	// All counts are halved when there are so many: a tail is that of the last requests.
	tailKept = 256
	// With fewer nothing is known.
	tailFew = 20
)

// tailBounds are the longest times of the buckets.
var tailBounds = func() (b [tailBuckets]time.Duration) {
	for i := range b {
		b[i] = time.Duration(float64(tailFirst) * math.Pow(2, float64(i)/4))
	}
	return b
}()

// tail estimates within what time 95 of 100 requests come back, for each size. Writers hold a
// lock; readers need none. Nothing is allocated.
type tail struct {
	counts [sizeClasses][tailBuckets]uint16
	totals [sizeClasses]int
	p95s   [sizeClasses]atomic.Int64 // nanoseconds; 0: not known
}

// note takes the time of a request.
func (t *tail) note(bytes int, took time.Duration) {
	c := sizeClass(bytes)
	i, _ := slices.BinarySearch(tailBounds[:], took)
	counts := &t.counts[c]
	counts[min(i, tailBuckets-1)]++
	if t.totals[c]++; t.totals[c] >= tailKept {
		t.totals[c] = 0
		for j := range counts {
			counts[j] /= 2
			t.totals[c] += int(counts[j])
		}
	}
	if t.totals[c] < tailFew {
		return
	}
	above := t.totals[c] / 20 // so many may have taken longer
	for j := tailBuckets - 1; j >= 0; j-- {
		if above -= int(counts[j]); above < 0 {
			t.p95s[c].Store(int64(tailBounds[j]))
			return
		}
	}
}

// p95 returns the estimate for requests of so many bytes, 0 if there is none. It is up to a
// fifth too long, but for times above half a minute.
func (t *tail) p95(bytes int) time.Duration { return time.Duration(t.p95s[sizeClass(bytes)].Load()) }
