package embedded

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path"
	"slices"
	"sync"

	"openvstorage/alba/abm"
	"openvstorage/alba/asd"
	"openvstorage/alba/fleet"
	"openvstorage/alba/maintenance"
	"openvstorage/internal/disk"

	"github.com/google/uuid"
)

// places are the directories in which ASDs are. An ASD is known by its identity, not
// by its place: mount points may be given to other disks, or change places among
// them. The ABM records where each ASD was seen last, and a disk that is not there is
// looked for in the places of the others.
type places struct {
	layout
	fs      disk.FS
	given   []string // Options.Dirs
	abm     *abm.Client
	fleet   *fleet.Fleet
	errands *errands
	logger  *slog.Logger

	mu       sync.Mutex
	recorded []string // the directories that the ABM knows
}

// candidates are the directories in which disks of this backend may be: those that
// the ABM knows, and those that were given.
func (p *places) candidates(ctx context.Context) ([]string, error) {
	known, err := maintenance.AllOSDs(ctx, p.abm)
	if err != nil {
		return nil, err
	}
	var dirs []string
	for _, o := range p.mine(known) {
		dirs = append(dirs, p.path(string(o.Endpoint)))
	}
	dirs = append(dirs, p.given...)
	slices.Sort(dirs)
	return slices.Compact(dirs), nil
}

// identity reads the identity of the ASD in a directory.
func (p *places) identity(ctx context.Context, dir string) (asd.Identity, error) {
	return p.errands.identity(ctx, dir)
}

// remember notes the directories of the disks that the ABM knows.
func (p *places) remember(all []abm.OSD) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recorded = p.recorded[:0]
	for _, o := range p.mine(all) {
		if o.Number != 0 {
			p.recorded = append(p.recorded, p.path(string(o.Endpoint)))
		}
	}
}

// move takes the directories that were given as the places of the ASDs in them. It
// refuses a directory that holds no ASD of this backend and is not recorded as the
// place of one.
func (p *places) move(ctx context.Context, all []abm.OSD) error {
	in := make([]string, len(all)) // where each ASD is, by what the directories hold
	var left []string              // directories that hold none of ours
	for _, dir := range p.given {
		recorded := slices.ContainsFunc(all, func(o abm.OSD) bool { return p.path(string(o.Endpoint)) == dir })
		id, err := p.identity(ctx, dir)
		if err != nil && !errors.Is(err, asd.ErrNoASD) && !recorded {
			return err // it may be one of them
		}
		i := slices.IndexFunc(all, func(o abm.OSD) bool { return err == nil && uuid.UUID(o.LongID) == id.ID })
		switch {
		case i >= 0 && in[i] == dir, slices.Contains(left, dir):
			return fmt.Errorf("%w: --asd %s is given twice", ErrOther, dir)
		case i >= 0 && in[i] != "":
			return fmt.Errorf("%w: %s and %s both hold ASD %s: one of them is a copy; take it away", ErrOther, in[i], dir, id.ID)
		case i >= 0:
			in[i] = dir
		case recorded:
			left = append(left, dir)
		default:
			return fmt.Errorf("%w: %s is none of the %d ASDs of this data directory: leave --asd out, and add or replace disks with `ovs alba osd`", ErrOther, dir, len(all))
		}
	}
	if len(p.given) != len(all) {
		return fmt.Errorf("%w: this data directory has %d ASDs, and --asd names %d: leave it out, and add or replace disks with `ovs alba osd`", ErrOther, len(all), len(p.given))
	}
	recorded := make([]string, len(all))
	for i, o := range all {
		recorded[i] = p.path(string(o.Endpoint))
	}
	return p.record(ctx, all, expectedIn(recorded, in, left))
}

// expectedIn gives each ASD that was found in no directory, for which in has "", a
// place among the directories that hold none: its recorded one, if that is among them,
// else any. It changes in and returns it.
func expectedIn(recorded, in, left []string) []string {
	for i, dir := range recorded {
		if at := slices.Index(left, dir); in[i] == "" && at >= 0 {
			in[i] = left[at]
			left = slices.Delete(left, at, at+1)
		}
	}
	for i := range in {
		if in[i] == "" && len(left) > 0 {
			in[i], left = left[0], left[1:]
		}
	}
	return in
}

// record records in the ABM where ASDs are. It takes a place that is still recorded of
// another ASD only after that one has its new place: a start that is cut short must
// leave each place recorded. ASDs that have changed places among themselves therefore
// stay recorded as they were, and find finds them.
func (p *places) record(ctx context.Context, all []abm.OSD, in []string) error {
	for again := true; again; {
		again = false
		for i := range all {
			taken := slices.ContainsFunc(all, func(o abm.OSD) bool { return p.path(string(o.Endpoint)) == in[i] })
			if taken || in[i] == "" {
				continue
			}
			all[i].Endpoint = []byte(p.endpoint(in[i]))
			if err := p.abm.RegisterOSD(ctx, all[i]); err != nil {
				return err
			}
			p.logger.Info("an ASD has moved", "disk", all[i].Number, "dir", in[i])
			again = true
		}
	}
	return nil
}

// find looks for disks that are missing. A disk that is in the place of another one
// gets that place. open reports whether a disk is open: no such disk is asked.
func (p *places) find(ctx context.Context, disks []*fleet.Disk, open func(number uint64) bool) []*fleet.Disk {
	disks = slices.Clone(disks)
	var elsewhere map[uuid.UUID]string
	for i, d := range disks {
		if id, err := p.identity(ctx, p.path(d.Place)); err == nil && id.ID == d.UUID || err != nil && !errors.Is(err, asd.ErrNoASD) {
			continue // it is there, or the directory cannot be read
		}
		if elsewhere == nil {
			elsewhere = p.elsewhere(ctx, open)
		}
		if dir, ok := elsewhere[d.UUID]; ok && dir != p.path(d.Place) {
			p.logger.Warn("a disk is in the place of another one", "disk", d.Number, "dir", dir, "recorded", p.path(d.Place))
			disks[i] = p.fleet.Move(d, p.endpoint(dir))
		}
	}
	return disks
}

// elsewhere returns the directories of the ASDs that are in places where no disk is
// open.
func (p *places) elsewhere(ctx context.Context, open func(number uint64) bool) map[uuid.UUID]string {
	p.mu.Lock()
	dirs := slices.Concat(p.recorded, p.given)
	p.mu.Unlock()
	inUse := make(map[string]bool)
	for _, d := range p.fleet.All() {
		if !p.own(d.Node) {
			continue
		}
		dir := p.path(d.Place)
		dirs = append(dirs, dir)
		if open(d.Number) {
			inUse[dir] = true
		}
	}
	slices.Sort(dirs)
	found := make(map[uuid.UUID]string)
	for _, dir := range slices.Compact(dirs) {
		if inUse[dir] {
			continue // it may hang, and what is in it is known
		}
		if id, err := p.identity(ctx, dir); err == nil && id.Owner == p.id {
			found[id.ID] = dir
		}
	}
	return found
}

// makeASD makes an ASD that the ABM has registered, unless it is there already, and
// gives it its owner.
func (p *places) makeASD(ctx context.Context, id uuid.UUID, endpoint string) error {
	dir := p.path(endpoint)
	return p.errands.do(ctx, dir, func(fsys disk.FS) error {
		switch there, err := asd.ReadIdentity(fsys, dir); {
		case err == nil && there.ID != id:
			return fmt.Errorf("%s holds ASD %s already, not %s: give an empty directory", dir, there.ID, id)
		case err == nil:
			return nil
		case !errors.Is(err, asd.ErrNoASD): // there may be one
			return err
		}
		if !path.IsAbs(endpoint) {
			if err := fsys.MkdirAll(path.Dir(dir), 0o700); err != nil {
				return err
			}
			if err := fsys.SyncDir(p.dir); err != nil {
				return err
			}
		}
		return asd.Create(fsys, dir, asd.Identity{ID: id, Owner: p.id, Node: p.node()})
	})
}

// free is the first directory under DIR/asd that no disk has. begun are the endpoints
// of ASDs that earlier calls have registered and not claimed.
func (p *places) free(begun map[string]uuid.UUID) (string, error) {
	for i := 0; ; i++ {
		endpoint := fmt.Sprintf("asd/%d", i)
		if slices.ContainsFunc(p.fleet.All(), func(d *fleet.Disk) bool { return p.own(d.Node) && d.Place == endpoint }) {
			continue
		}
		// No errand: if the data directory itself hung, nothing would run.
		_, err := p.fs.Stat(p.path(endpoint))
		if _, again := begun[endpoint]; again || errors.Is(err, fs.ErrNotExist) {
			return p.path(endpoint), nil
		}
		if err != nil {
			return "", fmt.Errorf("find a place for a disk: %w", err)
		}
	}
}

// unfinished is the file that asd.Create leaves when it is cut short, and removes when
// it is called again.
const unfinished = "new"

// checkEmpty refuses a directory that holds something.
func (p *places) checkEmpty(ctx context.Context, dir string) error {
	if !path.IsAbs(dir) {
		return fmt.Errorf("directory %q: give an absolute path", dir)
	}
	return p.errands.do(ctx, dir, func(fsys disk.FS) error {
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
