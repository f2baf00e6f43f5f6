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
	f.locate(all)
	for _, k := range []kind{reading, writing} {
		f.compare(all, k)
		f.compareTails(all, k)
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

// compareTails tells the fleet within what time requests usually come back: the lower median
// over the disks that answer.
func (f *Fleet) compareTails(all []*Disk, k kind) {
	for class := range sizeClasses {
		var list []int64
		for _, d := range all {
			if p := d.health.tails[k].p95s[class].Load(); p != 0 && d.Silent() == nil {
				list = append(list, p)
			}
		}
		slices.Sort(list)
		f.tails[k][class].Store(lowerMedian(list))
	}
}

// usually is within what time 95 of 100 requests of so many bytes come back on the faster half
// of the disks; 0 if nothing is known.
func (f *Fleet) usually(k kind, bytes int) time.Duration {
	return time.Duration(f.tails[k][sizeClass(bytes)].Load())
}

// Patience is Disk.Patience of a disk of which nothing is known. It is the lower median over
// the disks of the fleet. If reads of that size are few, it is what reads took lately plus four
// times their spread.
func (f *Fleet) Patience(bytes int) time.Duration {
	return patienceOf(0, f.usually(reading, bytes), scaled(f.usual.Load(), bytes))
}

// patienceOf decides how long a read may take. own and usual are within what time reads come
// back on its disk and on others, bound what is known of a mean; 0: nothing.
func patienceOf(own, usual, bound time.Duration) time.Duration {
	p := moderate(own, usual)
	if p == 0 {
		p = bound
	}
	if p == 0 {
		return patienceMax
	}
	return min(max(p, patienceMin), patienceMax)
}

// moderate is a disk's own time, bounded by twice what is usual.
func moderate(own, usual time.Duration) time.Duration {
	switch {
	case own == 0:
		return usual
	case usual == 0:
		return own
	}
	return min(own, 2*usual)
}

// scaled is the time of a request of so many bytes, of which each unit takes so long.
func scaled(unit int64, bytes int) time.Duration { return time.Duration(float64(unit) * units(bytes)) }

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
