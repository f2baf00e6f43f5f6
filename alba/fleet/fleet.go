package fleet

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"openvstorage/alba/osd"
	"openvstorage/alba/policy"

	"github.com/google/uuid"
)

// ErrMissing is matched by the error of every call on a disk that is not
// attached.
var ErrMissing = errors.New("disk is missing")

// ErrUnopened is matched, beside ErrMissing, by the error of every call on a disk that is
// where it should be and cannot be opened now, for a reason that is not the disk's. The
// disk does not count as gone: nothing on it is lost, and it is opened when the reason has
// passed.
var ErrUnopened error = unopened{}

type unopened struct{}

func (unopened) Error() string { return "disk is there, and cannot be opened now" }

// Is reports whether target is ErrMissing.
func (unopened) Is(target error) bool { return target == ErrMissing }

// Fleet is the disks of a backend, by number. All methods are safe for
// concurrent use.
type Fleet struct {
	now   func() time.Time
	ticks atomic.Int64                 // of Watch
	usual atomic.Int64                 // what a read takes, for each unit, at most; nanoseconds, 0: not known
	tails [2][sizeClasses]atomic.Int64 // within what time reads and writes usually come back; nanoseconds, 0: not known

	node, zone atomic.Pointer[string] // where this process is; nil: not known

	mu    sync.RWMutex
	disks map[uint64]*Disk
}

// New returns an empty fleet. now is the clock, nil for the machine's.
func New(now func() time.Time) *Fleet {
	if now == nil {
		now = time.Now
	}
	return &Fleet{now: now, disks: make(map[uint64]*Disk)}
}

// disk makes a disk that is missing and not in the fleet yet.
func (f *Fleet) disk(number uint64, id uuid.UUID, node, place string) *Disk {
	d := &Disk{Number: number, UUID: id, Node: node, Place: place, fleet: f}
	of := fmt.Sprintf("disk %d (%s)", number, place)
	d.attached.of, d.record.now = of, f.now
	d.health.of, d.health.now, d.health.ticks = of, f.now, &f.ticks
	d.attached.drop(nil, false)
	d.health.answers, d.health.silence = context.WithCancel(context.Background())
	return d
}

// Add makes a disk known, missing until it is attached. If the number is known already, it
// returns the disk that has it.
func (f *Fleet) Add(number uint64, id uuid.UUID, node, place string) *Disk {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.disks[number]; d != nil {
		return d
	}
	d := f.disk(number, id, node, place)
	d.Detach(fmt.Errorf("it was not there at the start"))
	f.disks[number] = d
	return d
}

// Move gives a missing disk another place. It returns the Disk that stands for the disk from
// now on; its counters begin anew.
func (f *Fleet) Move(d *Disk, place string) *Disk {
	moved := f.disk(d.Number, d.UUID, d.Node, place)
	moved.attached.inherit(&d.attached)
	moved.record.setLeaving(d.record.isLeaving())
	moved.SetZone(d.Zone())
	f.mu.Lock()
	defer f.mu.Unlock()
	f.disks[d.Number] = moved
	return moved
}

// Remove forgets a disk that is lost or purged.
func (f *Fleet) Remove(number uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.disks, number)
}

// Disk returns the disk with a number, nil if none has it.
func (f *Fleet) Disk(number uint64) *Disk {
	f.mu.RLock()
	defer f.mu.RUnlock()
	return f.disks[number]
}

// All returns all disks in order of number.
func (f *Fleet) All() []*Disk {
	f.mu.RLock()
	defer f.mu.RUnlock()
	list := make([]*Disk, 0, len(f.disks))
	for _, d := range f.disks {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b *Disk) int { return cmp.Compare(a.Number, b.Number) })
	return list
}

// Refresh is Disk.Refresh of all disks at once, so that the caller waits for the slowest
// and not for the sum. It returns the error of each.
func (f *Fleet) Refresh(ctx context.Context) map[*Disk]error {
	all := f.All()
	errs := make([]error, len(all))
	var asked sync.WaitGroup
	for i, d := range all {
		asked.Go(func() { errs[i] = d.Refresh(ctx) })
	}
	asked.Wait()
	said := make(map[*Disk]error, len(all))
	for i, d := range all {
		said[d] = errs[i]
	}
	return said
}

// Disks returns what placement needs to know, in order of number. Disks that
// are missing, full, or that failed a write a moment ago are failing.
func (f *Fleet) Disks() []policy.Disk {
	all := f.All()
	list := make([]policy.Disk, len(all))
	for i, d := range all {
		list[i] = d.placement()
	}
	return list
}

// Takes returns the first policy of a list that the disks can keep now, and how many bytes
// of objects they can take under it. If they can keep none, it returns the first policy
// and 0. It asks no disk: the figures are those that Refresh saw last.
func (f *Fleet) Takes(list []policy.Policy) (p policy.Policy, bytes uint64) {
	disks := f.Disks()
	i, width, ok := policy.Choose(list, disks)
	if !ok {
		return list[0], 0
	}
	var rooms []policy.Room
	for _, d := range disks {
		if !d.Usable() {
			continue
		}
		if u := f.Disk(d.OSD); u != nil {
			known := u.Known()
			rooms = append(rooms, policy.Room{Node: d.Node, Shared: known.Shared, Free: known.Room})
		}
	}
	return list[i], list[i].Takes(width, rooms)
}

// Alive reports the node of a disk and whether the disk is there and answers.
func (f *Fleet) Alive(number uint64) (node string, alive bool) {
	d := f.Disk(number)
	if d == nil {
		return "", false
	}
	return d.Node, d.Missing() == nil
}

var _ osd.OSD = (*Disk)(nil)
