package embedded

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path"
	"slices"
	"sync"
	"time"

	"openvstorage/alba/asd"
	"openvstorage/alba/fleet"
	"openvstorage/arakoon/groups"
	"openvstorage/internal/disk"
	"openvstorage/internal/generation"

	"github.com/google/uuid"
)

// Errors about which of two copies is the newer one, and about what follows.
var (
	// ErrOlder says that disks have seen a newer generation than this data directory.
	ErrOlder = errors.New("this data directory is an older copy")
	// ErrTwice says that another process has a disk of this backend open.
	ErrTwice = errors.New("a copy of this data directory is in use")
	// ErrSuspended says that nothing is deleted on disks until a person confirms it.
	ErrSuspended = errors.New("deletion is suspended")
)

// contradiction is what a disk has seen that this data directory has not: a newer
// generation, or one of a copy that went another way.
type contradiction struct {
	dir     string
	mark    generation.Mark
	verdict generation.Verdict
}

func (c contradiction) String() string {
	if c.verdict == generation.Foreign {
		return fmt.Sprintf("%s has seen generation %d of a copy that went on apart", c.dir, c.mark.Number)
	}
	return fmt.Sprintf("%s has seen generation %d", c.dir, c.mark.Number)
}

// disksWitness is under what name the ABM's group remembers of each ASD the newest
// generation that the ASD was told to remember: 16 bytes of its id and 8 of the
// number, little-endian, in order of id. An ASD that has seen less is an older copy of
// itself and has lost fragments that were acknowledged. An ASD that was only away has
// seen what it was told.
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

// generations judges which of two copies of a data directory, or of a disk, is the
// newer one. It keeps what each ASD was told to remember.
type generations struct {
	layout
	groups  *groups.Groups
	fleet   *fleet.Fleet
	errands *errands
	logger  *slog.Logger

	mu         sync.Mutex
	seen       disksSeen // what ASDs were told to remember
	fleetKnown bool      // the fleet has all disks that the ABM knows
}

// watch takes up the record of what ASDs were told, and has the ABM's group keep it.
func (g *generations) watch(ctx context.Context) error {
	b, err := g.groups.Witnessed(ctx, "abm", disksWitness)
	if err != nil {
		return err
	}
	seen, err := decodeDisksSeen(b)
	if err != nil {
		return err
	}
	g.mu.Lock()
	g.seen = seen
	g.mu.Unlock()
	g.groups.Watch(groups.Witness{Group: "abm", Name: disksWitness, Value: g.witness, Follows: true})
	return nil
}

// remembered notes that an ASD has remembered a generation.
func (g *generations) remembered(a *asd.ASD, m generation.Mark) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seen[a.ID()] = m.Number
}

// forgetOthers says that the fleet has all disks that the ABM knows. From then on what
// other disks were told is forgotten.
func (g *generations) forgetOthers() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.fleetKnown = true
}

// witness is what the ABM's group is to remember of the disks that the fleet has.
func (g *generations) witness() []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.fleetKnown {
		known := make(map[uuid.UUID]bool)
		for _, d := range g.fleet.All() {
			known[d.UUID] = true
		}
		maps.DeleteFunc(g.seen, func(id uuid.UUID, _ uint64) bool { return !known[id] })
	}
	return g.seen.append([]byte{})
}

// judge asks the disks that are there, before anything is written to any of them,
// whether this data directory is the one that they saw last. It returns the newest
// generation that one of them has seen, and whether an older copy is accepted:
// accept, unless nothing here is older.
func (g *generations) judge(ctx context.Context, dirs []string, accept bool) (newest uint64, accepted bool, err error) {
	var against []contradiction
	for i, c := range g.claims(ctx, dirs) {
		if c.err != nil { // in use elsewhere: nothing can be told from it
			return 0, false, c.err
		}
		if !c.ours {
			continue
		}
		newest = max(newest, c.mark.Number)
		if v := g.groups.Judge(c.mark); v != generation.Ours {
			against = append(against, contradiction{dirs[i], c.mark, v})
		}
	}
	switch {
	case len(against) == 0 && accept:
		g.logger.Warn("nothing here is older than its disks: leave --accept-older out")
		return newest, false, nil
	case len(against) == 0:
		return newest, false, nil
	case !accept:
		return 0, false, fmt.Errorf("%w: %s is of generation %d, and %v: what was written since is not in it. Put the newest copy back, or go on with this one with --accept-older, which deletes nothing on disks until you say so",
			ErrOlder, g.dir, g.groups.Generation(), against)
	}
	g.logger.Warn("an older copy of the data directory was accepted: what was written since is not in it; nothing is deleted on disks until `ovs alba backend resume-deletion`",
		"generation", g.groups.Generation(), "disks", fmt.Sprint(against))
	return newest, true, nil
}

// claimed is what the ASD in a directory has seen, if there is one and it is ours.
type claimed struct {
	mark generation.Mark
	ours bool
	err  error
}

// claims asks the ASDs in directories what they have seen, side by side. An ASD that
// does not answer is left out: mayAttach judges it when it is opened.
func (g *generations) claims(ctx context.Context, dirs []string) []claimed {
	list := make([]claimed, len(dirs))
	var all sync.WaitGroup
	for i, dir := range dirs {
		all.Go(func() {
			var c claimed
			err := g.errands.do(ctx, dir, func(fsys disk.FS) error {
				c.mark, c.ours, c.err = g.claimOf(fsys, dir)
				return nil
			})
			switch {
			case err == nil:
				list[i] = c
			case ctx.Err() != nil:
				list[i].err = ctx.Err()
			default:
				g.logger.Warn("a disk does not answer; going on without it", "dir", dir, "err", err)
			}
		})
	}
	all.Wait()
	return list
}

// claimOf reads what the ASD in a directory has seen, if there is one and it is ours.
// An ASD that cannot be read is missing, and mayAttach judges it when it is back. An
// ASD that another process has open belongs to a copy of this data directory: the lock
// of this data directory is held by this process.
func (g *generations) claimOf(fsys disk.FS, dir string) (m generation.Mark, ours bool, err error) {
	id, err := asd.ReadIdentity(fsys, dir)
	if err != nil || id.Owner != g.id {
		return m, false, nil
	}
	lock, err := fsys.Lock(path.Join(dir, asd.LockName))
	if errors.Is(err, disk.ErrLocked) {
		return m, false, fmt.Errorf("%w: the ASD in %s is held by another process (%w), and %s by this one: stop the other, and start the one that ran last", ErrTwice, dir, err, g.dir)
	}
	if err != nil {
		return m, false, nil
	}
	m, _, err = asd.ReadClaim(fsys, dir)
	return m, err == nil, lock.Close()
}

// mayAttach judges a disk that is about to be attached, as it may have been away when
// judge asked the others.
func (g *generations) mayAttach(fsys disk.FS, dir string, id uuid.UUID) error {
	m, whole, err := asd.ReadClaim(fsys, dir)
	if err != nil {
		return err
	}
	g.mu.Lock()
	told := g.seen[id]
	g.mu.Unlock()
	if m.Number < told && whole {
		return fmt.Errorf("the ASD in %s is an older copy: it has seen generation %d, and it was told of %d; put the newest one back, or give it up with `ovs alba osd replace`", dir, m.Number, told)
	}
	if v := g.groups.Judge(m); v != generation.Ours {
		return fmt.Errorf("%w: %s is of generation %d, and %v: stop, and put the newest copy back, or start with --accept-older", ErrOlder, g.dir, g.groups.Generation(), contradiction{dir, m, v})
	}
	return nil
}

// mark is the generation of this start.
func (g *generations) mark() generation.Mark { return g.groups.Mark() }

// mayDelete is nil if fragments that no object names may be deleted on disks, else the
// reason why not.
func (g *generations) mayDelete() error {
	since := g.groups.Suspended()
	if since.IsZero() {
		return nil
	}
	return fmt.Errorf("%w since %s, when an older copy of the data directory was accepted, or groups were made anew: look at `ovs alba backend check`, then say `ovs alba backend resume-deletion`", ErrSuspended, since.Format(time.RFC3339))
}
