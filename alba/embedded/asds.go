package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/stopdisk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

// asdSet is the ASDs that this process has open. It opens them, opens them again, and
// closes them, and tells the fleet. Disks come and go one at a time. Its lock is taken
// before those of places, generations, errands and the fleet, and may be held for as
// long as a disk takes to open or to close.
type asdSet struct {
	layout
	fs           disk.FS
	segmentBytes int64
	files        *asd.Descriptors // of all ASDs
	room         sharedRoom
	abm          *abm.Client
	fleet        *fleet.Fleet
	errands      *errands
	places       *places
	generations  marks
	others       *remotes
	enough       func(context.Context) bool // whether objects can be stored with the disks that are attached
	wake         func()                     // tells maintenance that a disk is there
	logger       *slog.Logger

	served sync.Map // *asd.ASD by its UUID: those of open, for whoever may not wait

	mu      sync.Mutex
	open    map[uint64]openASD  // by number of the disk
	opening map[uint64]*opening // under way
}

// marks are the generations that disks are told to remember, and are judged by.
type marks interface {
	// mayAttach judges the ASD in a directory, which is about to be opened.
	mayAttach(fsys disk.FS, dir string, id uuid.UUID) error
	// mark is the generation of this start.
	mark() generation.Mark
	// remembered notes that an ASD has remembered a generation.
	remembered(a *asd.ASD, m generation.Mark)
}

// openASD is an open ASD, and the files on which it was opened.
type openASD struct {
	*asd.ASD
	fs *stopdisk.FS
}

// opening is an ASD that is being opened. Its result may be looked at when its errand
// has ended.
type opening struct {
	*errand
	asd *asd.ASD
	err error

	calls int64     // of it that had come back when it was looked at
	moved time.Time // when they were fewer
}

// underWay is why a disk that is being opened is not there yet.
func (o *opening) underWay() error {
	return fmt.Errorf("%s is being opened since %s", o.dir, o.since.UTC().Format(time.RFC3339))
}

// openEnough is after how long a disk that is still being opened is not waited for,
// if objects can be stored without it. A disk that was not closed cleanly reads much
// of itself, which takes a slow disk long.
const openEnough = 8 * time.Second

// all returns the open ASDs, by number of their disks.
func (s *asdSet) all() map[uint64]openASD {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Clone(s.open)
}

// held calls change while no disk comes or goes.
func (s *asdSet) held(change func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return change()
}

// refresh makes the fleet what the ABM says, opens the disks that are there, and connects
// to those of other hosts.
func (s *asdSet) refresh(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	all, err := maintenance.AllOSDs(ctx, s.abm)
	if err != nil {
		return err
	}
	s.places.remember(all)
	known := make(map[uint64]bool)
	var missing []*fleet.Disk
	for _, o := range all {
		if o.Number == 0 {
			continue
		}
		known[o.Number] = true
		if o.State == abm.OSDLost {
			s.dropLocked(ctx, o.Number, errors.New("it is lost, and was given up"))
			continue
		}
		if old := s.fleet.Disk(o.Number); old != nil && old.Node != o.Node {
			s.dropLocked(ctx, o.Number, errors.New("it is on another host now"))
		}
		d := s.fleet.Add(o.Number, uuid.UUID(o.LongID), o.Node, string(o.Endpoint))
		d.SetLeaving(o.State == abm.OSDDraining)
		d.SetZone(o.Zone)
		switch {
		case !s.own(o.Node):
			s.others.follow(d)
		case d.Attached() != nil:
			missing = append(missing, d)
		}
	}
	for _, d := range s.fleet.All() {
		if !known[d.Number] {
			s.dropLocked(ctx, d.Number, errors.New("it was forgotten"))
		}
	}
	s.attachLocked(ctx, missing...)
	return nil
}

// attachLocked opens disks of the fleet that are where they should be, side by side,
// as a disk that was not closed cleanly reads much of itself. A disk that does not
// answer is missing. A later call attaches it, after it has answered.
func (s *asdSet) attachLocked(ctx context.Context, disks ...*fleet.Disk) {
	open := func(number uint64) bool { return s.open[number].ASD != nil }
	// Disks that have changed places wait for each other's open, once.
	later := s.attachSomeLocked(ctx, s.places.find(ctx, disks, open))
	for _, d := range s.attachSomeLocked(ctx, later) {
		s.cannotOpen(d, fmt.Errorf("%w in %s: another one is being opened there", asd.ErrNoASD, s.path(d.Place)))
	}
}

// attachSomeLocked is attachLocked, except that it returns the disks in whose places
// other disks are being opened.
func (s *asdSet) attachSomeLocked(ctx context.Context, disks []*fleet.Disk) (later []*fleet.Disk) {
	type result struct {
		d   *fleet.Disk
		o   *opening
		err error // why it was left
	}
	waiting, leave := context.WithCancel(ctx)
	defer leave()
	results := make(chan result, len(disks))
	left := 0
	for _, d := range disks {
		o, err := s.beginLocked(ctx, d)
		if errors.Is(err, errTaken) {
			later = append(later, d)
			continue
		}
		if err != nil {
			s.cannotOpen(d, err)
			continue
		}
		left++
		go func() { results <- result{d, o, o.wait(waiting)} }()
	}
	long := time.NewTicker(openEnough)
	defer long.Stop()
	for left > 0 {
		select {
		case r := <-results:
			left--
			if errors.Is(r.err, context.Canceled) && ctx.Err() == nil {
				r.d.Unopened(r.o.underWay())
			} else if r.err != nil {
				s.cannotOpen(r.d, r.err)
			} else {
				s.openedLocked(ctx, r.d, r.o)
			}
		case <-long.C:
			if s.enough(ctx) {
				leave()
			}
		}
	}
	return later
}

var errTaken = errors.New("another disk is being opened there")

// beginLocked begins to open a disk, or returns the open of it that is under way.
func (s *asdSet) beginLocked(ctx context.Context, d *fleet.Disk) (*opening, error) {
	if o := s.opening[d.Number]; o != nil {
		return o, nil
	}
	dir := s.path(d.Place)
	for _, other := range s.opening {
		if other.dir == dir {
			return nil, errTaken
		}
	}
	o := new(opening)
	files := stopdisk.New(s.fs)
	ctx = context.WithoutCancel(ctx) // the open outlives a caller that leaves it
	e, err := s.errands.begin(dir, files, func(fsys disk.FS) {
		if o.asd, o.err = s.openOne(ctx, fsys, dir, d.UUID); o.asd != nil && files.Stopped() {
			_ = o.asd.Close() // nobody waits for it
		}
	})
	if err != nil {
		return nil, err
	}
	o.errand = e
	s.opening[d.Number] = o
	return o, nil
}

// openedLocked takes the result of an open that has ended.
func (s *asdSet) openedLocked(ctx context.Context, d *fleet.Disk, o *opening) {
	delete(s.opening, d.Number)
	if o.err != nil {
		s.cannotOpen(d, o.err)
		return
	}
	s.open[d.Number] = openASD{o.asd, o.fs}
	s.served.Store(o.asd.ID(), o.asd)
	d.Attach(o.asd)
	d.Follow(o.fs.Turn)
	if err := d.Refresh(ctx); err != nil {
		s.logger.Warn("a disk does not tell how full it is", "disk", d.Number, "err", err)
	}
	s.logger.Info("disk is there", "disk", d.Number, "dir", o.dir)
	s.wake()
}

// cannotOpen notes why a disk cannot be opened: it is missing, or it is there and the
// machine lacks what it takes to open it.
func (s *asdSet) cannotOpen(d *fleet.Disk, err error) {
	if old := d.Reason(); old != nil && old.Error() == err.Error() {
		return // known, and logged, since the last try
	}
	if asd.Passes(err) {
		s.logger.Warn("disk cannot be opened", "disk", d.Number, "dir", s.path(d.Place), "err", err)
		d.Unopened(err)
		return
	}
	s.logger.Warn("disk is missing", "disk", d.Number, "dir", s.path(d.Place), "err", err)
	d.Detach(err)
}

// raiseStall is how long a disk may take to remember a generation.
const raiseStall = 2 * time.Second

// raise has the ASDs remember a generation that have not remembered it yet. An ASD
// that does not answer, or in whose directory an errand is under way, is left to the
// next call.
func (s *asdSet) raise(ctx context.Context, m generation.Mark) error {
	var behind []openASD
	for number, a := range s.all() {
		if d := s.fleet.Disk(number); a.Claimed() != m && (d == nil || d.Silent() == nil) && !s.errands.busy(a.Dir()) {
			behind = append(behind, a)
		}
	}
	errs := make([]error, len(behind))
	var all sync.WaitGroup
	for i, a := range behind {
		all.Go(func() { errs[i] = s.raiseOne(ctx, a, m) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (s *asdSet) raiseOne(ctx context.Context, a openASD, m generation.Mark) error {
	var err error
	e, refused := s.errands.begin(a.Dir(), a.fs, func(disk.FS) {
		if err = a.Raise(context.WithoutCancel(ctx), m); err == nil {
			s.generations.remembered(a.ASD, m)
		}
	})
	if refused != nil {
		return refused
	}
	if left := e.waitFor(ctx, raiseStall); left != nil {
		return left
	}
	return err
}
