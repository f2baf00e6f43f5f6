package embedded

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"openvstorage/alba/client"
	"openvstorage/alba/health"
	"openvstorage/alba/maintenance"
	"openvstorage/alba/nsm"
	"openvstorage/alba/nsm/userfn"
	"openvstorage/internal/ctxlock"
)

// census finds out how many more disks may die before an object is lost. The counters
// of a namespace give a lower bound, which is the answer while no disk is gone. While
// one is gone, the census reads the objects of those buckets whose bound is below the
// answer so far, and stops at the first object that is at the bound.
type census struct {
	nsm  *nsm.Client
	work *maintenance.Maintenance

	turn  ctxlock.Lock // one counts at a time
	known map[censusKey]counted
}

func newCensus(n *nsm.Client, work *maintenance.Maintenance) *census {
	return &census{nsm: n, work: work, turn: ctxlock.New(), known: make(map[censusKey]counted)}
}

// censusKey is what was counted: a bucket of a namespace, while some disks were gone.
type censusKey struct {
	ns     uint64
	bucket nsm.Bucket
	gone   string
}

// counted is the result of a count.
type counted struct {
	counters string // of the namespace, as they were
	mayLose  int
	until    time.Time // it is good enough until then, whatever was written since
}

const (
	// A count is good for censusFactor times what it took, and for censusMax at most.
	// After that it is made again if something has changed.
	censusFactor = 10
	censusMax    = 10 * time.Second
	// censusKeep is for how long after that a count is good if nothing has changed.
	censusKeep = time.Minute
	// censusKnown is how many counts are kept.
	censusKnown = 1000
	// suspectsMax bounds the objects waiting for a repair that are looked at one by
	// one. With more than that, the state of a single object no longer matters.
	suspectsMax = 1000
)

// mayLose is how many more fragments the weakest object of a namespace may lose. It is
// MaxInt if no object has fragments. gone are the disks that cannot be read.
func (c *census) mayLose(ctx context.Context, n *Namespace, gone map[uint64]bool) (int, error) {
	least := math.MaxInt
	on := 0 // gone disks that have something of it
	for _, u := range n.OSDs {
		if gone[u.OSD] && u.Fragments > 0 {
			on++
		}
	}
	buckets := slices.Clone(n.Buckets)
	slices.SortFunc(buckets, func(a, b nsm.BucketCount) int {
		return (int(a.Present) - int(a.K)) - (int(b.Present) - int(b.K))
	})
	for _, k := range buckets {
		whole := int(k.Present) - int(k.K)
		switch {
		case k.K == 0: // inline: as safe as the NSM
		case on == 0:
			least = min(least, whole)
		case whole-on < least:
			found, err := c.countBucket(ctx, n, k.Bucket, gone, whole-on)
			if err != nil {
				return 0, err
			}
			least = min(least, found)
		}
	}
	return least, nil
}

// countBucket looks for the object of a bucket that may lose the fewest fragments,
// and is done when one may lose no more than floor.
func (c *census) countBucket(ctx context.Context, n *Namespace, bucket nsm.Bucket, gone map[uint64]bool, floor int) (int, error) {
	if err := c.turn.Take(ctx); err != nil {
		return 0, err
	}
	defer c.turn.Give()
	key := censusKey{n.Number, bucket, fmt.Sprint(slices.Sorted(maps.Keys(gone)))}
	counters := fmt.Sprint(n.Objects, n.Size, n.Stored, n.Buckets, n.OSDs)
	begin := time.Now()
	if old, ok := c.known[key]; ok && (begin.Before(old.until) || old.counters == counters && begin.Before(old.until.Add(censusKeep))) {
		return old.mayLose, nil
	}
	least := int(bucket.Present) - int(bucket.K)
	for after := ""; least > floor; {
		page, next, err := c.nsm.ListByBucket(ctx, n.Number, bucket, after, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return 0, err
		}
		for _, o := range page {
			least = min(least, healthOf(o, gone, nil).MayLose())
		}
		if after = next; next == "" {
			break
		}
	}
	if len(c.known) > censusKnown {
		clear(c.known) // most are of namespaces and disks that are no more
	}
	c.known[key] = counted{counters, least, time.Now().Add(min(censusFactor*time.Since(begin), censusMax))}
	return least, nil
}

// healthOf is what is known of an object. Fragments on disks that are gone, and
// fragments that were found bad, do not count.
func healthOf(o *nsm.Object, gone map[uint64]bool, bad []client.Bad) health.Object {
	h := health.Object{K: int(o.Policy.K), Width: o.Policy.Width(), Readable: math.MaxInt}
	for i, c := range o.Chunks {
		n := 0
		for j, f := range c.Fragments {
			if f.OSD != 0 && !gone[f.OSD] && !isBad(bad, o, i, j, f.OSD) {
				n++
			}
		}
		h.Readable = min(h.Readable, n)
	}
	return h
}

func isBad(bad []client.Bad, o *nsm.Object, chunk, fragment int, disk uint64) bool {
	return slices.ContainsFunc(bad, func(b client.Bad) bool {
		return b.Object == o.ID && b.Chunk == chunk && b.Fragment == fragment && b.OSD == disk
	})
}

// suspects counts the objects that wait for a repair, by namespace and in all. least is
// how many more fragments the weakest of them may lose.
func (c *census) suspects(ctx context.Context, gone map[uint64]bool) (waiting map[uint64]uint64, all uint64, least int, err error) {
	list, all := c.work.Suspects(suspectsMax)
	waiting, least = make(map[uint64]uint64), math.MaxInt
	byNamespace := make(map[uint64][]maintenance.Suspect)
	for _, s := range list {
		waiting[s.Namespace]++
		byNamespace[s.Namespace] = append(byNamespace[s.Namespace], s)
	}
	for ns, some := range byNamespace {
		for page := range slices.Chunk(some, nsm.MaxPage) {
			names := make([]string, len(page))
			for i, s := range page {
				names[i] = s.Name
			}
			objects, err := c.nsm.MultiGet(ctx, ns, names, userfn.Consistent)
			if errors.Is(err, nsm.ErrNamespaceNotFound) {
				continue
			}
			if err != nil {
				return nil, 0, 0, err
			}
			for i, o := range objects {
				if o != nil && len(o.Chunks) > 0 {
					least = min(least, healthOf(o, gone, page[i].Bad).MayLose())
				}
			}
		}
	}
	return waiting, all, least, nil
}
