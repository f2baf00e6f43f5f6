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
)

// census finds out how many more disks may die before an object is lost, from what
// objects have. The counters of a namespace bound it; objects are looked at only
// where the bound is not the answer: while a disk is gone, those of which an object
// could be the one that bears least. The first that is ends the look.
type census struct {
	turn  chan struct{} // holds one while nobody looks
	known map[censusKey]counted
}

func newCensus() census {
	c := census{turn: make(chan struct{}, 1), known: make(map[censusKey]counted)}
	c.turn <- struct{}{}
	return c
}

type censusKey struct {
	ns     uint64
	bucket nsm.Bucket
	gone   string
}

// counted is what was found in a bucket while some disks were gone.
type counted struct {
	counters string // of the namespace, as they were
	mayLose  int
	until    time.Time // it is good enough until then, whatever was written since
}

const (
	// A look is made again after censusFactor times what it took, and after
	// censusMax, if something has changed.
	censusFactor = 10
	censusMax    = 10 * time.Second
	// suspectsMax is of how many objects that wait for a repair it is found out what
	// they may lose. Of more than that it does not matter any more.
	suspectsMax = 1000
)

// mayLose is how many fragments more the object of a namespace may lose that bears
// least, MaxInt if none has fragments. gone are the disks that cannot be read.
func (b *Backend) mayLose(ctx context.Context, n *Namespace, gone map[uint64]bool) (int, error) {
	least := math.MaxInt
	on := 0 // gone disks that have something of it
	for _, u := range n.OSDs {
		if gone[u.OSD] && u.Fragments > 0 {
			on++
		}
	}
	buckets := slices.Clone(n.Buckets)
	slices.SortFunc(buckets, func(a, c nsm.BucketCount) int {
		return (int(a.Present) - int(a.K)) - (int(c.Present) - int(c.K))
	})
	for _, k := range buckets {
		whole := int(k.Present) - int(k.K)
		switch {
		case k.K == 0: // inline: as safe as the NSM
		case on == 0:
			least = min(least, whole)
		case whole-on < least:
			found, err := b.countBucket(ctx, n, k.Bucket, gone, whole-on)
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
func (b *Backend) countBucket(ctx context.Context, n *Namespace, bucket nsm.Bucket, gone map[uint64]bool, floor int) (int, error) {
	select {
	case <-b.census.turn:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { b.census.turn <- struct{}{} }()
	key := censusKey{n.Number, bucket, fmt.Sprint(slices.Sorted(maps.Keys(gone)))}
	counters := fmt.Sprint(n.Objects, n.Size, n.Stored, n.Buckets, n.OSDs)
	begin := time.Now()
	if old, ok := b.census.known[key]; ok && (begin.Before(old.until) || old.counters == counters && begin.Before(old.until.Add(time.Minute))) {
		return old.mayLose, nil
	}
	least := int(bucket.Present) - int(bucket.K)
	for after := ""; least > floor; {
		page, next, err := b.nsm.ListByBucket(ctx, n.Number, bucket, after, nsm.MaxPage, userfn.Consistent)
		if err != nil {
			return 0, err
		}
		for _, o := range page {
			least = min(least, of(o, gone, nil).MayLose())
		}
		if after = next; next == "" {
			break
		}
	}
	if len(b.census.known) > 1000 {
		clear(b.census.known) // of namespaces and disks that were
	}
	b.census.known[key] = counted{counters, least, time.Now().Add(min(censusFactor*time.Since(begin), censusMax))}
	return least, nil
}

// of is what is known of an object: fragments on disks that are gone, and those that
// were found bad, do not count.
func of(o *nsm.Object, gone map[uint64]bool, bad []client.Bad) health.Object {
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

// suspects counts objects that wait for a repair, by namespace, and what the one of
// them may lose that bears least.
func (b *Backend) suspects(ctx context.Context, gone map[uint64]bool) (waiting map[uint64]uint64, all uint64, least int, err error) {
	list, all := b.work.Suspects(suspectsMax)
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
			objects, err := b.nsm.MultiGet(ctx, ns, names, userfn.Consistent)
			if errors.Is(err, nsm.ErrNamespaceNotFound) {
				continue
			}
			if err != nil {
				return nil, 0, 0, err
			}
			for i, o := range objects {
				if o != nil && len(o.Chunks) > 0 {
					least = min(least, of(o, gone, page[i].Bad).MayLose())
				}
			}
		}
	}
	return waiting, all, least, nil
}
