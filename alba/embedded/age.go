package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/asd"
	"openvstorage/alba/maintenance"
	"openvstorage/arakoon/groups"
	"openvstorage/internal/disk"
	"openvstorage/internal/disk/stopdisk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

// Errors of Open about which of two copies is the newer one.
var (
	// ErrOlder: disks have seen a newer generation than this data directory.
	ErrOlder = errors.New("this data directory is an older copy")
	// ErrTwice: somebody else has a disk of this backend open.
	ErrTwice = errors.New("a copy of this data directory is in use")
	// ErrSuspended: nothing is deleted on disks until a person has confirmed it.
	ErrSuspended = errors.New("deletion is suspended")
)

// aheadOf is what a disk says that is ahead of the data directory, or went
// another way.
type aheadOf struct {
	dir     string
	mark    generation.Mark
	verdict generation.Verdict
}

func (a aheadOf) String() string {
	if a.verdict == generation.Foreign {
		return fmt.Sprintf("%s has seen generation %d of a copy that went on apart", a.dir, a.mark.Number)
	}
	return fmt.Sprintf("%s has seen generation %d", a.dir, a.mark.Number)
}

// The ABM's group remembers of each ASD the newest generation that the ASD was
// told to remember: 16 bytes of its id and 8 of the number, little-endian, in order
// of id. An ASD that has seen less is an older copy of itself, and has lost
// fragments that were acknowledged; one that was away has seen what it was told.
const disksWitness = "disks"

// disksSeen is that record.
type disksSeen map[uuid.UUID]uint64

func (d disksSeen) append(dst []byte) []byte {
	for _, id := range slices.SortedFunc(maps.Keys(d), func(a, b uuid.UUID) int { return bytes.Compare(a[:], b[:]) }) {
		dst = append(dst, id[:]...)
		dst = binary.LittleEndian.AppendUint64(dst, d[id])
	}
	return dst
}

func decodeDisksSeen(b []byte) (disksSeen, error) {
	d := make(disksSeen)
	for ; len(b) >= 24; b = b[24:] {
		d[uuid.UUID(b[:16])] = binary.LittleEndian.Uint64(b[16:])
	}
	if len(b) > 0 {
		return nil, fmt.Errorf("record of what disks have seen: %d bytes behind the last", len(b))
	}
	return d, nil
}

// told notes what an ASD has remembered.
func (b *Backend) told(a *asd.ASD, m generation.Mark) {
	b.seenMu.Lock()
	defer b.seenMu.Unlock()
	b.seen[a.ID()] = m.Number
}

// witness is what the ABM's group is to remember of the disks: those that the
// fleet has.
func (b *Backend) witness() []byte {
	b.seenMu.Lock()
	defer b.seenMu.Unlock()
	if b.fleetKnown.Load() {
		known := make(map[uuid.UUID]bool)
		for _, d := range b.fleet.All() {
			known[d.UUID] = true
		}
		maps.DeleteFunc(b.seen, func(id uuid.UUID, _ uint64) bool { return !known[id] })
	}
	return b.seen.append([]byte{})
}

// judgeDisks asks the disks that are there, before anything is written to any,
// whether this data directory is the one that they saw last. It returns the
// newest generation that one of them has seen.
func (b *Backend) judgeDisks(ctx context.Context) (newest uint64, err error) {
	places, err := b.places(ctx)
	if err != nil {
		return 0, err
	}
	var ahead []aheadOf
	for i, c := range b.claims(ctx, places) {
		if c.err != nil {
			return 0, c.err
		}
		if !c.ours {
			continue
		}
		newest = max(newest, c.mark.Number)
		if v := b.groups.Judge(c.mark); v != generation.Ours {
			ahead = append(ahead, aheadOf{places[i], c.mark, v})
		}
	}
	switch {
	case len(ahead) == 0 && b.opt.AcceptOlder:
		b.opt.Logger.Warn("nothing here is older than its disks: leave --accept-older out")
		b.opt.AcceptOlder = false
	case len(ahead) > 0 && !b.opt.AcceptOlder:
		return 0, fmt.Errorf("%w: %s is of generation %d, and %v: what was written since is not in it. Put the newest copy back, or go on with this one with --accept-older, which deletes nothing on disks until you say so",
			ErrOlder, b.opt.Dir, b.groups.Generation(), ahead)
	case len(ahead) > 0:
		b.opt.Logger.Warn("an older copy of the data directory was accepted: what was written since is not in it; nothing is deleted on disks until `ovs alba backend resume-deletion`",
			"generation", b.groups.Generation(), "disks", fmt.Sprint(ahead))
	}
	return newest, nil
}

// places are the directories in which disks of this backend may be.
func (b *Backend) places(ctx context.Context) ([]string, error) {
	known, err := maintenance.AllOSDs(ctx, b.abm)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, o := range known {
		dirs = append(dirs, b.path(string(o.Endpoint)))
	}
	dirs = append(dirs, b.opt.Dirs...)
	slices.Sort(dirs)
	return slices.Compact(dirs), nil
}

// claimed is what the ASD in a directory has seen, if there is one and it is ours.
type claimed struct {
	mark generation.Mark
	ours bool
	err  error
}

// claims asks the ASDs in directories what they have seen, side by side. One that does
// not answer is judged when it does.
func (b *Backend) claims(ctx context.Context, dirs []string) []claimed {
	list := make([]claimed, len(dirs))
	var all sync.WaitGroup
	for i, dir := range dirs {
		all.Go(func() {
			var c claimed
			err := b.aside(ctx, dir, func(fsys disk.FS) error {
				c.mark, c.ours, c.err = b.claimOf(fsys, dir)
				return nil
			})
			switch {
			case err == nil:
				list[i] = c
			case ctx.Err() != nil:
				list[i].err = ctx.Err()
			default:
				b.opt.Logger.Warn("a disk does not answer; going on without it", "dir", dir, "err", err)
			}
		})
	}
	all.Wait()
	return list
}

// claimOf reads what the ASD in a directory has seen, if there is one and it is
// ours. One that cannot be read is missing, and is judged when it is back; one
// that somebody has open is used by a copy of this data directory, whose own
// lock is ours.
func (b *Backend) claimOf(fsys disk.FS, dir string) (m generation.Mark, ours bool, err error) {
	id, err := asd.ReadIdentity(fsys, dir)
	if err != nil || id.Owner != b.opt.ID {
		return m, false, nil
	}
	lock, err := fsys.Lock(path.Join(dir, asd.LockName))
	if errors.Is(err, disk.ErrLocked) {
		return m, false, fmt.Errorf("%w: the ASD in %s is held by another process (%w), and %s by this one: stop the other, and start the one that ran last", ErrTwice, dir, err, b.opt.Dir)
	}
	if err != nil {
		return m, false, nil
	}
	m, _, err = asd.ReadClaim(fsys, dir)
	return m, err == nil, lock.Close()
}

// mayAttach judges a disk that is about to be attached: it may have been away
// when the others were judged.
func (b *Backend) mayAttach(fsys disk.FS, dir string, id uuid.UUID) error {
	m, whole, err := asd.ReadClaim(fsys, dir)
	if err != nil {
		return err
	}
	b.seenMu.Lock()
	told := b.seen[id]
	b.seenMu.Unlock()
	if m.Number < told && whole {
		return fmt.Errorf("the ASD in %s is an older copy: it has seen generation %d, and it was told of %d; put the newest one back, or give it up with `ovs alba osd replace`", dir, m.Number, told)
	}
	if v := b.groups.Judge(m); v != generation.Ours {
		return fmt.Errorf("%w: %s is of generation %d, and %v: stop, and put the newest copy back, or start with --accept-older", ErrOlder, b.opt.Dir, b.groups.Generation(), aheadOf{dir, m, v})
	}
	return nil
}

// Beat claims a generation if something has changed since the newest was claimed,
// first in the data directory and its groups, then on the disks. It is done in the
// background, and when the backend is closed.
func (b *Backend) Beat(ctx context.Context) error {
	m, _, err := b.groups.Beat(ctx)
	if err != nil {
		return err
	}
	b.mu.Lock()
	var behind []*asd.ASD
	var doors []*stopdisk.FS
	for number, a := range b.asds {
		// One that does not answer is told when it does.
		if d := b.fleet.Disk(number); a.Claimed() != m && (d == nil || d.Silent() == nil) && !b.busy(a.Dir()) {
			behind, doors = append(behind, a), append(doors, b.doors[number])
		}
	}
	b.mu.Unlock()
	errs := make([]error, len(behind))
	var all sync.WaitGroup
	for i, a := range behind {
		all.Go(func() { errs[i] = b.raise(ctx, a, doors[i], m) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// raise has an ASD remember a generation.
func (b *Backend) raise(ctx context.Context, a *asd.ASD, door *stopdisk.FS, m generation.Mark) error {
	var err error
	e, begun := b.errand(a.Dir(), door, func(disk.FS) {
		if err = a.Raise(context.WithoutCancel(ctx), m); err == nil {
			b.told(a, m)
		}
	})
	if begun != nil {
		return begun
	}
	if left := e.waitFor(ctx, raiseStall); left != nil {
		return left
	}
	return err
}

// raiseStall is how long a disk may take to remember a generation.
const raiseStall = 2 * time.Second

// beats beats until ctx ends.
func (b *Backend) beats(ctx context.Context) {
	tick := time.NewTicker(groups.BeatEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		beat, cancel := context.WithTimeout(ctx, groups.BeatMax)
		err := b.Beat(beat)
		cancel()
		if err != nil && ctx.Err() == nil {
			b.opt.Logger.Warn("a generation was not claimed everywhere, to be tried again", "err", err)
		}
	}
}

// mayDelete is nil if what nobody needs any more may be deleted on disks.
func (b *Backend) mayDelete() error {
	since := b.groups.Suspended()
	if since.IsZero() {
		return nil
	}
	return fmt.Errorf("%w since %s, when an older copy of the data directory was accepted: look at `ovs alba backend check`, then say `ovs alba backend resume-deletion`", ErrSuspended, since.Format(time.RFC3339))
}
