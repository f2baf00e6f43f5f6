package restore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"path"
	"slices"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/roster"
	"openvstorage/arakoon/state"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/volumedriver/registry"
	"openvstorage/writebuffer"
)

// generationGap is how far the generation goes on behind the newest that is known: no start
// of the lost directory has claimed so many since.
const generationGap = 1 << 32

// Names in a data directory.
const (
	groupsDir  = "arakoon"
	draftDir   = groupsDir + ".restoring"
	bufferDir  = "buffer"
	localDir   = "backend" // of a backend in a directory
	rosterFile = "roster"
	trustDir   = "trust"
)

// Errors of Run that callers match with errors.Is.
var (
	// ErrExists: the directory has groups.
	ErrExists = errors.New("the directory has groups")
	// ErrOther: the backup and the directory do not belong together.
	ErrOther = errors.New("the backup is of another data directory")
)

// Options for Run. FS, Dir and Backups must be given.
type Options struct {
	FS      disk.FS
	Dir     string   // the data directory: absent, empty, or one whose arakoon/ is lost. Absolute
	Backups []Backup // of all groups, as they were at one instant
	// WithoutBuffer has vDisks go on without what their files in DIR/buffer had beyond the
	// backend. A directory that is made anew has none.
	WithoutBuffer bool
	// Disks are directories of ASDs that are not where the backup has them: of a directory
	// that is made anew, those that were in the lost one. Absolute.
	Disks []string
	Now   func() time.Time // default time.Now
}

// Report says what was restored.
type Report struct {
	Dir    string    `json:"directory"`
	ID     uuid.UUID `json:"id"`
	Life   uint64    `json:"life"`
	Groups []Group   `json:"groups"`
	VDisks []VDisk   `json:"vdisks"`
	Disks  []Disk    `json:"disks,omitempty"`
	Hosts  []Host    `json:"hosts,omitempty"`    // others of the cluster, whose members are given up
	Zones  bool      `json:"zones,omitempty"`    // zones were required to hold what is answered; not any more
	Trust  string    `json:"trust,omitempty"`    // is absent: where the first host of a cluster has its certificate and, as a rule, the passphrase of the authority
	Aside  string    `json:"putAside,omitempty"` // what was put out of the way is there
}

// Group is a group that was restored.
type Group struct {
	Name     string `json:"group"`
	Member   uint64 `json:"member"`
	Revision uint64 `json:"revision"` // of the backup
	Keys     uint64 `json:"keys"`
}

// VDisk is a vDisk that the backup names.
type VDisk struct {
	Name string    `json:"name"`
	ID   uuid.UUID `json:"id"`
	// Flushed is up to which seq it had been flushed, as the backup knows: not after, and up
	// to ten seconds before.
	Flushed uint64 `json:"flushed"`
	// Local: its local files are there, and are looked at when it is opened.
	Local bool `json:"local"`
}

// Host is another host of the cluster.
type Host struct {
	ID   uuid.UUID `json:"host"`
	Zone string    `json:"zone,omitempty"`
}

// Run restores the groups of a data directory. No ovs up may run on it. After an error, or
// a power cut, there is no group, and Run can be called again; the package comment says in
// which order all is made durable. Backups that are not whole are refused before anything is
// made. ErrExists, ErrOther.
func Run(ctx context.Context, o Options) (Report, error) {
	r := &run{Options: o}
	if r.Now == nil {
		r.Now = time.Now
	}
	err := r.restore(ctx)
	if r.dir != nil {
		err = errors.Join(err, r.dir.Close())
	}
	if err != nil {
		return Report{}, fmt.Errorf("restore %s: %w", o.Dir, err)
	}
	return r.report, nil
}

type run struct {
	Options
	of         *contents
	dir        *datadir.Directory
	made       bool // the directory is new
	life       uint64
	generation uint64
	by         uint64            // how far numbers go on behind those of the backup
	disks      uint64            // newest generation that a disk has seen
	members    map[string]uint64 // of each group, its number
	report     Report
}

func (r *run) at(name ...string) string { return path.Join(append([]string{r.Dir}, name...)...) }

func (r *run) restore(ctx context.Context) (err error) {
	if r.of, err = read(r.Backups); err != nil {
		return err
	}
	if err := r.claim(); err != nil {
		return err
	}
	if err := r.makeGroups(ctx); err != nil {
		return err
	}
	if err := r.clear(); err != nil {
		return err
	}
	if err := r.prepareVDisks(); err != nil {
		return err
	}
	if err := r.dir.Change(r.settle); err != nil {
		return err
	}
	if err := r.FS.Rename(r.at(draftDir), r.at(groupsDir)); err != nil {
		return err
	}
	return r.FS.SyncDir(r.Dir)
}

// claim claims the directory, and finds out whether it may be restored.
func (r *run) claim() error {
	_, err := r.FS.Stat(r.at(datadir.FormatFile))
	absent := errors.Is(err, fs.ErrNotExist)
	switch {
	case !absent && err != nil:
		return err
	case !absent:
		if r.dir, err = datadir.Open(r.FS, r.Dir); err == nil {
			err = r.askDisks()
		}
	case r.of.backend == uuid.Nil:
		return fmt.Errorf("%s is new, and the objects of this backup's vDisks are in the directory that was lost, under %s: put that directory back, without %s, and restore there", r.Dir, localDir, groupsDir)
	default:
		if err := r.sameCluster(r.of.backend); err != nil {
			return err
		}
		if err := r.askDisks(); err != nil {
			return err
		}
		// Its groups count as made from the first moment on, so that no start makes them.
		// Its generation stays 0 until all is there: so it is known that it is new if this
		// is cut short.
		r.plan(datadir.Record{})
		first := datadir.Record{ID: r.of.backend}
		r.settle(&first)
		first.Generation = 0
		r.dir, err = datadir.OpenAs(r.FS, r.Dir, first)
	}
	if err != nil {
		return err
	}
	record := r.dir.Record()
	if r.made = record.Generation == 0; r.life == 0 {
		r.plan(record)
	}
	r.report.Dir, r.report.ID, r.report.Life = r.Dir, r.dir.ID, r.life
	if err := r.belongs(record); err != nil {
		return err
	}
	return r.vacant()
}

// plan decides on numbers. Each restore raises the generation by generationGap. So what
// disks have seen says how often there was a restore already, of the same backup perhaps, and
// this one goes on behind all of them. A random part keeps apart what no disk that can be
// reached knows of.
func (r *run) plan(record datadir.Record) {
	seen := max(r.of.generation, record.Generation, r.disks)
	r.life = max(r.of.life, record.Life, seen/generationGap) + 1
	r.generation = seen + generationGap
	r.by = (r.life-r.of.life)*generationGap + rand.Uint64N(generationGap/2)
}

// sameCluster refuses backups of groups that were not made in the directory of an ID.
func (r *run) sameCluster(id uuid.UUID) error {
	for name, info := range r.of.infos {
		if want := uuid.NewSHA1(id, []byte(name)); info.Cluster != want {
			return fmt.Errorf("%w: its group %s is %s, and that of %s would be %s", ErrOther, name, info.Cluster, id, want)
		}
	}
	return nil
}

// belongs refuses a directory that the groups were not made in.
func (r *run) belongs(record datadir.Record) error {
	if err := r.sameCluster(r.dir.ID); err != nil {
		return err
	}
	if record.Cluster != uuid.Nil {
		return fmt.Errorf("%w: it is that of a host which has joined cluster %s; restore in the first host's, or in a new one", ErrOther, record.Cluster)
	}
	for _, dir := range record.Groups {
		name := groups.NameOf(dir)
		if _, ok := r.of.infos[name]; !ok {
			return fmt.Errorf("%w: it has a group %s, of which there is no backup", ErrOther, name)
		}
	}
	if r.of.backend == uuid.Nil {
		if _, err := r.FS.Stat(r.at(localDir)); err != nil {
			return fmt.Errorf("the objects of all vDisks are missing: %w: put them back first", err)
		}
	}
	return nil
}

// vacant refuses a directory with groups, or with anything in their place.
func (r *run) vacant() error {
	names, err := r.FS.ReadDir(r.at(groupsDir))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case len(names) > 0:
		return fmt.Errorf("%w: %s holds %q. Nothing is restored over what is there: if it is lost, move it away first", ErrExists, r.at(groupsDir), names[0])
	}
	return r.FS.Remove(r.at(groupsDir))
}

// reading is a backup that is read until ctx ends.
type reading struct {
	ctx context.Context
	io.Reader
}

func (r reading) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// makeGroups makes all groups under another name. What is there under it never had a member
// that ran.
func (r *run) makeGroups(ctx context.Context) error {
	if err := r.FS.RemoveAll(r.at(draftDir)); err != nil {
		return err
	}
	if err := r.FS.MkdirAll(r.at(draftDir), 0o700); err != nil {
		return err
	}
	for _, h := range r.of.roster.Hosts {
		if h.ID != r.dir.ID {
			r.report.Hosts = append(r.report.Hosts, Host{ID: h.ID, Zone: h.Zone})
		}
	}
	for _, g := range r.of.roster.Groups {
		r.report.Zones = r.report.Zones || g.RequireZones > 1
	}
	if r.members = map[string]uint64{}; r.of.roster.Revision > 0 {
		r.members = r.of.roster.Restored(r.dir.ID, r.life)
		if err := r.of.roster.Check(); err != nil {
			return err
		}
	}
	for _, b := range r.Backups {
		if err := r.makeGroup(ctx, b); err != nil {
			return fmt.Errorf("group %s: %w", b.Group, err)
		}
	}
	return r.FS.SyncDir(r.at(draftDir))
}

func (r *run) makeGroup(ctx context.Context, b Backup) (err error) {
	f, err := b.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	was, number := r.of.infos[b.Group], max(r.members[b.Group], 1)
	change := &state.Change{Each: raised(b.Group, r.by), Set: map[string][]byte{}}
	if b.Group == configGroup && r.of.roster.Revision > 0 {
		change.Set = r.of.roster.Values()
	}
	change.Set[groups.RecoveryKey] = groups.Recovery{From: groups.FromBackup, Time: r.Now(), Life: r.life, Revision: was.Index, OfLife: was.Life}.Append(nil)
	info, err := arakoon.RestoreChanged(arakoon.Options{
		FS: r.FS, Dir: r.at(draftDir, groups.DirOf(b.Group, number)), Cluster: was.Cluster, Member: number, Life: r.life, Generation: r.generation,
	}, reading{ctx, bufio.NewReaderSize(f, 1<<20)}, change)
	if err == nil && (info.Index != was.Index || info.Cluster != was.Cluster) {
		err = fmt.Errorf("the backup was another one when it was read first: revision %d, and now %d", was.Index, info.Index)
	}
	r.report.Groups = append(r.report.Groups, Group{Name: b.Group, Member: number, Revision: info.Index, Keys: info.Keys})
	return err
}

// settle is what the record of the directory says from now on. All that others have seen of
// the directory is older than the generation, and counts as its own.
func (r *run) settle(record *datadir.Record) {
	record.Generation, record.Settled, record.History = r.generation, 0, nil
	record.Life, record.Suspended = r.life, r.Now().UTC()
	record.Groups = nil
	for _, name := range r.of.names() {
		record.Groups = append(record.Groups, groups.DirOf(name, r.members[name]))
	}
	slices.Sort(record.Groups)
}

// clear puts aside what has no meaning beside the restored groups: pages of maps, which come
// from the backend again, whom the lost groups had as members, and what a person had decided
// of them. It writes the roster.
func (r *run) clear() error {
	aside, err := r.aside()
	if err != nil {
		return err
	}
	names := []string{"map", "scrub", rosterFile, "recovery.json"}
	if r.WithoutBuffer {
		names = append(names, bufferDir)
	}
	for _, name := range names {
		if _, err := r.FS.Stat(r.at(name)); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return err
		}
		if r.report.Aside == "" {
			if err := r.FS.MkdirAll(aside, 0o700); err != nil {
				return err
			}
			r.report.Aside = aside
		}
		if err := r.FS.Rename(r.at(name), path.Join(aside, name)); err != nil {
			return err
		}
	}
	if r.report.Aside != "" {
		if err := r.FS.SyncDir(aside); err != nil {
			return err
		}
	}
	if err := r.FS.SyncDir(r.Dir); err != nil || r.of.roster.Revision == 0 {
		return err
	}
	if _, err := r.FS.Stat(r.at(trustDir)); errors.Is(err, fs.ErrNotExist) {
		r.report.Trust = r.at(trustDir)
	} else if err != nil {
		return err
	}
	f, err := roster.Load(r.FS, r.at(rosterFile), r.dir.ID)
	if err != nil {
		return err
	}
	return f.Put(&r.of.roster)
}

// aside is a directory that is not there yet. An earlier restore that was cut short may have
// left some.
func (r *run) aside() (string, error) {
	for n := 1; ; n++ {
		dir := r.at(fmt.Sprintf("before-restore-%d-%d", r.life, n))
		if _, err := r.FS.Stat(dir); errors.Is(err, fs.ErrNotExist) {
			return dir, nil
		} else if err != nil {
			return "", err
		}
	}
}

// prepareVDisks says of each vDisk of this host that it goes on without local files, where
// there are to be none.
func (r *run) prepareVDisks() error {
	for _, v := range r.of.vdisks {
		if v.Host != uuid.Nil && v.Host != r.dir.ID {
			continue
		}
		out := VDisk{Name: v.Name, ID: v.ID, Flushed: r.of.reached[v.ID].Seq}
		if r.made || r.WithoutBuffer {
			if err := r.accept(v); err != nil {
				return fmt.Errorf("vDisk %q: %w", v.Name, err)
			}
		} else if names, err := r.FS.ReadDir(r.at(bufferDir, v.ID.String())); err == nil {
			out.Local = !slices.Contains(names, writebuffer.AcceptLoss)
		}
		r.report.VDisks = append(r.report.VDisks, out)
	}
	return nil
}

func (r *run) accept(v registry.Record) error {
	dir := r.at(bufferDir, v.ID.String())
	if err := disk.MakeDir(r.FS, dir, 0o700); err != nil {
		return err
	}
	f, err := r.FS.OpenFile(path.Join(dir, writebuffer.AcceptLoss), disk.Write|disk.Create, 0o600)
	if err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	return r.FS.SyncDir(dir)
}
