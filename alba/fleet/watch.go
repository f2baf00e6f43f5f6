package fleet

import (
	"cmp"
	"context"
	"slices"
	"sync/atomic"
	"time"
)

// Watch follows how the disks do until ctx ends. changed, if not nil, is called for each
// disk whose state has changed.
func (f *Fleet) Watch(ctx context.Context, changed func(d *Disk, before, after Condition)) {
	t := time.NewTicker(tick)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			f.Judge(changed)
		}
	}
}

// Judge is one tick of Watch.
func (f *Fleet) Judge(changed func(d *Disk, before, after Condition)) {
	now := f.ticks.Add(1)
	all := f.All()
	for _, k := range []kind{reading, writing} {
		f.compare(all, k)
	}
	for _, d := range all {
		before, after := d.judge(now)
		if before.State != after.State && changed != nil {
			changed(d, before, after)
		}
	}
}

// compare tells each disk how long requests take on the others, and the fleet how long a
// read should take. Disks on the disk's own file system do not count as others: they wait
// for the same medium, and a request that one of them is spared goes to the next.
func (f *Fleet) compare(all []*Disk, k kind) {
	type pace struct {
		of     *Disk
		shared uint64
		mean   time.Duration
	}
	var paces []pace
	var bounds []time.Duration
	for _, d := range all {
		if mean := time.Duration(d.health.costs[k].mean.Load()); mean > 0 && d.Silent() == nil {
			paces = append(paces, pace{d, d.Known().Shared, mean})
			bounds = append(bounds, d.health.costs[k].bound())
		}
	}
	slices.SortFunc(paces, func(a, b pace) int { return cmp.Compare(a.mean, b.mean) })
	for _, d := range all {
		shared := d.Known().Shared
		var others []time.Duration
		for _, p := range paces {
			if p.of != d && (shared == 0 || p.shared != shared) {
				others = append(others, p.mean)
			}
		}
		d.health.par[k].Store(int64(lowerMedian(others)))
	}
	if k == reading {
		slices.Sort(bounds)
		f.usual.Store(int64(lowerMedian(bounds)))
	}
}

// lowerMedian returns the lower median of a sorted list, so that of two disks the faster
// counts; 0 for an empty list.
func lowerMedian[T cmp.Ordered](list []T) (m T) {
	if len(list) > 0 {
		m = list[(len(list)-1)/2]
	}
	return m
}

// Patience is how long a read of so many bytes should take: as long as reads took lately
// plus four times their spread. It is the lower median over the disks of the fleet: a disk
// that has become slow must not make readers wait longer.
func (f *Fleet) Patience(bytes int) time.Duration {
	if bound := f.usual.Load(); bound != 0 {
		return patience(bound, bytes)
	}
	return patienceMax
}

func patience(bound int64, bytes int) time.Duration {
	return min(max(time.Duration(float64(bound)*units(bytes)), patienceMin), patienceMax)
}

// latency follows how long requests take, as TCP follows its round trips (RFC 6298): a mean
// and a mean deviation, each moved a little by every request.
type latency struct {
	mean, spread atomic.Int64 // nanoseconds
}

func (l *latency) note(took time.Duration) {
	took = max(took, 1) // 0: nothing is known
	mean := l.mean.Load()
	if mean == 0 {
		l.mean.Store(int64(took))
		l.spread.Store(int64(took) / 2)
		return
	}
	off := int64(took) - mean
	l.mean.Store(mean + off/8)
	spread := l.spread.Load()
	l.spread.Store(spread + (max(off, -off)-spread)/4)
}

func (l *latency) bound() time.Duration { return time.Duration(l.mean.Load() + 4*l.spread.Load()) }
