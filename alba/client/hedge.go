package client

import (
	"cmp"
	"math/bits"
	"sync/atomic"
	"time"

	"openvstorage/alba/fleet"
	"openvstorage/alba/object"
)

// A read of a range asks the disk of one fragment. If that is late, k others are asked for the
// same range (a hedge), and whatever comes first serves the read. That costs k reads, so hedges
// have a budget: if all disks have become slow, they must not make them slower.
const (
	// Each read allows for hedgeShare/100 reads of hedges, and hedgeMost reads are saved up.
	hedgeShare = 5
	hedgeMost  = 64
	// hedgeAnyway is after how long a read is hedged whatever the budget: its disk may hang.
	hedgeAnyway = time.Second
	// A read is very late if it takes lateTimes as long as its patience. If it came by itself
	// then, it tells against its disk all the same.
	lateTimes = 2
	// sampleEvery: of so many reads one goes to a disk that is slow, so that it is seen
	// when it is well again.
	sampleEvery = 32
	// lookMost bounds the time after which a read that waits for slow disks looks for others.
	lookMost = 200 * time.Millisecond
)

// budget is a bucket of tokens, full at first. Safe for concurrent use.
type budget struct{ spent atomic.Int64 } // hundredths of reads, of at most 100*hedgeMost

// asked tells of reads that somebody has asked for.
func (b *budget) asked(reads int) {
	for {
		old := b.spent.Load()
		if old == 0 || b.spent.CompareAndSwap(old, max(old-int64(hedgeShare*reads), 0)) {
			return
		}
	}
}

// take pays for reads of a hedge, and reports whether the budget allowed for them. Half of what is
// saved up is for reads that are very late: those of a disk that begins to be slow, and not the
// slowest reads of one that is well.
func (b *budget) take(reads int, veryLate bool) bool {
	most := int64(100 * hedgeMost / 2)
	if veryLate {
		most = 100 * hedgeMost
	}
	for {
		old := b.spent.Load()
		next := old + 100*int64(reads)
		if next > most {
			return false
		}
		if b.spent.CompareAndSwap(old, next) {
			return true
		}
	}
}

// hedgeNow decides what becomes of a read that has waited for so long: whether others are asked,
// and after what time else to look again. paid reports whether the budget has paid for it.
func hedgeNow(waited, patience time.Duration, paid bool) (ask bool, wait time.Duration) {
	if paid || waited >= hedgeAnyway {
		return true, 0
	}
	return false, min(patience, hedgeAnyway-waited)
}

// standing is how well a disk serves reads, the worst last. That it takes no writes does not
// count.
type standing uint8

const (
	prompt    standing = iota
	suspected          // its last reads were late
	slow               // far slower than the others, for some time
	silent             // it does not answer
)

func standingOf(d *fleet.Disk) standing {
	switch {
	case d.Silent() != nil:
		return silent
	case d.Late():
		return slow
	case d.Suspected():
		return suspected
	}
	return prompt
}

// passOver decides whether a read leaves the disk of its fragment out. better is how many others
// of the chunk are on disks of a better standing: with fewer than k the disk is as good as any,
// and reading k fragments for one would only make all slower.
func passOver(own standing, better, k int, sample bool) bool {
	return (own == suspected || own == slow) && better >= k && !sample
}

func (rd *reader) passedOver(e *entry, r object.Range, d *fleet.Disk) bool {
	own := standingOf(d)
	if own == prompt {
		return false
	}
	better := 0
	for i := range e.m.Policy.Width() {
		if other, err := rd.diskOf(e, r.Chunk, i); err == nil && i != r.Fragment && standingOf(other) < own {
			better++
		}
	}
	return passOver(own, better, int(e.m.Policy.K), rd.sparing.Add(1)%sampleEvery == 0)
}

// candidate is a fragment that may be read, and what is known of its disk.
type candidate struct {
	fragment int
	disk     *fleet.Disk
	standing standing
	far      fleet.Distance
	pace     int // how long its reads take, in powers of two; those up to paceLeast are alike
	parity   bool
}

const paceLeast = time.Millisecond

// compareCandidates orders those to be read first before others: disks that are well, then those
// that are near, then those that are fast; then data, which costs less to make a range of.
func compareCandidates(a, b candidate) int {
	parity := func(c candidate) int {
		if c.parity {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.standing, b.standing), cmp.Compare(a.far, b.far), cmp.Compare(a.pace, b.pace),
		cmp.Compare(parity(a), parity(b)), cmp.Compare(a.fragment, b.fragment))
}

func (rd *reader) candidate(e *entry, r object.Range, i int, d *fleet.Disk) candidate {
	c := candidate{fragment: i, disk: d, standing: standingOf(d), far: rd.fleet.Distance(d), parity: i >= int(e.m.Policy.K)}
	if pace := d.Pace(int(r.Len)); pace > paceLeast {
		c.pace = bits.Len64(uint64(pace / paceLeast))
	}
	return c
}
