package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"openvstorage/alba/abm"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance"
	"openvstorage/arakoon"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// ErrNoOSD is matched by the error of calls on a disk number that nobody has.
var ErrNoOSD = errors.New("no such disk")

// AddOSD makes an ASD in an empty directory, "" being the next one under
// DIR/asd, and takes it into the backend. It returns its number.
func (b *Backend) AddOSD(ctx context.Context, dir string) (uint64, error) {
	b.mu.Lock()
	id, err := b.register(ctx, dir)
	if err != nil {
		b.mu.Unlock()
		return 0, err
	}
	var number uint64
	err = b.decide(ctx, func(ctx context.Context) (err error) {
		number, err = b.abm.ClaimOSD(ctx, id)
		return err
	})
	b.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return number, b.settle(ctx)
}

// ReplaceOSD gives a disk up for good, with all that it holds, and takes a new
// ASD in its place, in an empty directory: that of the old one if dir is "". What
// the old one held is made again from other disks. It refuses to give up a disk
// that is there: that would throw away good fragments.
func (b *Backend) ReplaceOSD(ctx context.Context, old uint64, dir string) (uint64, error) {
	b.mu.Lock()
	d := b.fleet.Disk(old)
	var missing, why error // it may come back in between
	if d != nil {
		why, missing = d.Reason(), d.Missing()
	}
	switch {
	case d == nil:
		b.mu.Unlock()
		return 0, b.gone(ctx, old)
	case errors.Is(missing, fleet.ErrUnopened):
		b.mu.Unlock()
		return 0, fmt.Errorf("disk %d is there, and cannot be opened now: %w: mend that; nothing on it is lost", old, cmp.Or(why, missing))
	case missing == nil:
		b.mu.Unlock()
		return 0, fmt.Errorf("disk %d is there, in %s: take it away first, or move its data off with `ovs alba osd remove`", old, b.path(d.Place))
	case dir == "" && errors.Is(d.Missing(), fleet.ErrNotAnswering):
		b.mu.Unlock()
		return 0, fmt.Errorf("disk %d does not answer: %s cannot be used; give another directory with --asd", old, b.path(d.Place))
	case dir == "":
		dir = b.path(d.Place)
	}
	id, err := b.register(ctx, dir)
	if err != nil {
		b.mu.Unlock()
		return 0, err
	}
	var number uint64
	err = b.decide(ctx, func(ctx context.Context) (err error) {
		number, err = b.abm.ReplaceOSD(ctx, old, id)
		return err
	})
	b.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return number, b.settle(ctx)
}

// RemoveOSD has a disk drained: its fragments are moved to others, and when it
// holds none it is forgotten.
func (b *Backend) RemoveOSD(ctx context.Context, number uint64) error {
	if b.fleet.Disk(number) == nil {
		return b.gone(ctx, number)
	}
	err := b.decide(ctx, func(ctx context.Context) error { return b.abm.DecommissionOSD(ctx, number) })
	if err != nil {
		return err
	}
	return b.settle(ctx)
}

// Waits for what the ABM has decided.
const (
	decideMax   = time.Minute
	decidePause = 50 * time.Millisecond
)

// decide asks the ABM for a change that does nothing when it is asked for again,
// until the ABM answers: what is decided must be told to others. If it does not
// answer in time, lookOut finds out. The end of ctx does not end it.
func (b *Backend) decide(ctx context.Context, change func(ctx context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), decideMax)
	defer cancel()
	for {
		err := change(ctx)
		if !errors.Is(err, arakoon.ErrUnknownOutcome) {
			return err
		}
		b.unsettled.Store(true)
		select {
		case <-time.After(decidePause):
		case <-ctx.Done():
			return fmt.Errorf("the ABM has not answered; what it decides is followed when it does: %w", err)
		}
	}
}

// settle tells the NSM host and the fleet what the ABM has decided.
func (b *Backend) settle(ctx context.Context) (err error) {
	b.unsettled.Store(false)
	defer func() {
		if err != nil {
			b.unsettled.Store(true)
		}
	}()
	if err := b.abm.Carry(ctx, b.host, b.nsm); err != nil {
		return err
	}
	err = b.refresh(ctx)
	b.work.Wake()
	return err
}

// register makes an ASD in a directory and has the ABM know it, or goes on with
// what an earlier call had begun there. The ABM knows it first: nobody could tell
// an ASD that nobody knows from one with data. b.mu is held.
func (b *Backend) register(ctx context.Context, dir string) (uuid.UUID, error) {
	begun, err := b.unclaimed(ctx)
	if err != nil {
		return uuid.Nil, err
	}
	if dir == "" {
		if dir, err = b.freePlace(begun); err != nil {
			return uuid.Nil, err
		}
	}
	endpoint := b.endpoint(dir)
	id, again := begun[endpoint]
	if there, err := b.identityIn(ctx, dir); again && err == nil && there.ID == id {
		return id, nil
	}
	if err := b.emptyDirectory(ctx, dir); err != nil {
		return uuid.Nil, err
	}
	if !again {
		id = uuid.New()
		err := b.decide(ctx, func(ctx context.Context) error {
			return b.abm.RegisterOSD(ctx, abm.OSD{LongID: id, Node: b.node(), Endpoint: []byte(endpoint)})
		})
		if err != nil {
			return uuid.Nil, err
		}
	}
	return id, b.makeASD(ctx, id, endpoint)
}

// unclaimed returns the ASDs, by endpoint, that the ABM knows and that have no
// number: calls that took them in were cut short.
func (b *Backend) unclaimed(ctx context.Context) (map[string]uuid.UUID, error) {
	all, err := maintenance.AllOSDs(ctx, b.abm)
	begun := make(map[string]uuid.UUID)
	for _, o := range all {
		if o.Number == 0 {
			begun[string(o.Endpoint)] = uuid.UUID(o.LongID)
		}
	}
	return begun, err
}

// freePlace is the first directory under DIR/asd that no disk has.
func (b *Backend) freePlace(begun map[string]uuid.UUID) (string, error) {
	for i := 0; ; i++ {
		endpoint := fmt.Sprintf("asd/%d", i)
		if b.placed(endpoint) {
			continue
		}
		_, err := b.opt.FS.Stat(b.path(endpoint))
		if _, again := begun[endpoint]; again || errors.Is(err, fs.ErrNotExist) {
			return b.path(endpoint), nil
		}
		if err != nil {
			return "", fmt.Errorf("find a place for a disk: %w", err)
		}
	}
}

func (b *Backend) placed(endpoint string) bool {
	for _, d := range b.fleet.All() {
		if d.Place == endpoint {
			return true
		}
	}
	return false
}

// endpoint is how a directory is recorded: relative if it is in the data
// directory.
func (b *Backend) endpoint(dir string) string {
	if rest, ok := strings.CutPrefix(dir, b.opt.Dir+"/"); ok {
		return rest
	}
	return dir
}

// unfinished is what asd.Create leaves if it is cut short, and takes away.
const unfinished = "new"

// emptyDirectory refuses a directory that holds something.
func (b *Backend) emptyDirectory(ctx context.Context, dir string) error {
	if !path.IsAbs(dir) {
		return fmt.Errorf("directory %q: give an absolute path", dir)
	}
	return b.aside(ctx, dir, func(fsys disk.FS) error {
		names, err := fsys.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for _, name := range names {
			if name != "lost+found" && name != unfinished {
				return fmt.Errorf("%s is not empty, it holds %q: give an empty directory", dir, name)
			}
		}
		return nil
	})
}
