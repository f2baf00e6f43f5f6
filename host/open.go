package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/google/uuid"
	"github.com/prometheus/client_golang/prometheus"

	"openvstorage/alba/cluster"
	albahere "openvstorage/alba/embedded"
	"openvstorage/alba/preset"
	"openvstorage/arakoon/groups"
	"openvstorage/backend"
	"openvstorage/backend/local"
	"openvstorage/fusefs/filetree"
	"openvstorage/host/members"
	"openvstorage/host/registrykeys"
	"openvstorage/host/treekeys"
	"openvstorage/internal/control"
	"openvstorage/internal/disk"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
	"openvstorage/writebuffer"
)

// embedded is the whole system in one process: the volume driver over a backend and a
// registry, all in one data directory. The directory's UUID is that of the host: it is
// what has vDisks, wherever the directory is.
type embedded struct {
	*volumedriver.Host
	groups   *groups.Groups
	backend  store
	alba     *albahere.Backend // the backend, if it is that; else nil
	fs       disk.FS
	local    string // the backend's directory, if it is one
	registry *registry.Registry
	lacked   atomic.Pointer[volumedriver.Host] // gives up room, once it is open
	spare    *spare                            // what gives way before that
	held     held                              // what became of the data directory
	members  *members.Members                  // of a host that others can join; else nil
}

// store is a backend that can be closed.
type store interface {
	backend.Store
	Close() error
}

func openEmbedded(ctx context.Context, o openOptions) (_ *embedded, err error) {
	e := &embedded{fs: o.fs, spare: o.spare, members: o.members}
	if e.spare == nil {
		e.spare = newSpare(o.fs, o.dir, o.logger)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, e.closeStores())
		}
	}()
	makeRoom(o.fs, o.dir, o.logger)
	kind, err := backendKind(o)
	if err != nil {
		return nil, err
	}
	// A directory of objects says which backend it is, so it comes before groups.
	if err = e.openOutside(ctx, o, kind); err != nil {
		return nil, err
	}
	if err = e.openGroups(ctx, o, kind); err != nil {
		return nil, err
	}
	if kind != BackendALBA {
		if err = e.groups.Claim(ctx, 0, false); err == nil {
			e.groups.Start()
		}
	} else {
		err = e.openALBA(ctx, o)
	}
	if err != nil {
		return nil, err
	}
	if err = e.openRegistry(ctx, o); err != nil {
		return nil, err
	}
	reached, err := e.reached(ctx)
	if err != nil {
		return nil, err
	}
	shared, err := markShared(o, kind)
	if err != nil {
		return nil, err
	}
	e.spare.needs("map")
	e.Host, err = volumedriver.Open(ctx, volumedriver.Options{
		FS: o.fs, Dir: o.dir.Path,
		WriteBuffer: int64(o.writeBuffer), MapCache: int64(o.mapCache), UploadSlots: o.uploads, ReadWait: o.readWait, OpenFiles: o.files.Buffer,
		Backend: e.backend, Shared: shared, Registry: e.registry, Host: o.dir.ID, Owner: owner(), Reached: reached, Logger: o.logger,
		OnScarce: e.giveUp, OnFull: e.lacks,
	})
	if err != nil {
		return nil, err
	}
	e.lacked.Store(e.Host)
	keepReserve(o.dir, o.logger)
	e.groups.Watch(groups.Witness{Group: registryGroup, Name: volumedriver.ReachedWitness, Value: func() []byte { return e.Host.Reached().Append([]byte{}) }})
	return e, e.settleReached(ctx, reached)
}

// settleReached has the group remember at once that a person chose to go on with a vDisk
// of which less is there than was flushed.
func (e *embedded) settleReached(ctx context.Context, before volumedriver.Reached) error {
	for id, now := range e.Host.Reached() {
		if now.Seq < before[id].Seq {
			_, _, err := e.groups.Beat(ctx)
			return err
		}
	}
	return nil
}

// Kinds of backend, as Options name them.
const (
	BackendALBA  = "alba"
	BackendLocal = "local"
)

// Names of groups, and of directories in the data directory.
const (
	registryGroup = "registry"
	localDir      = "backend"
	registryDir   = "registry" // of older releases
)

// backendKind tells which backend the data directory has, or is to get.
func backendKind(o openOptions) (string, error) {
	kind, err := recordedBackend(o)
	switch {
	case err != nil:
		return "", err
	case kind == "" && o.backend == "":
		return BackendALBA, nil
	case kind == "":
		return o.backend, nil
	case o.backend != "" && o.backend != kind:
		return "", fmt.Errorf("data directory %s has the backend %q, not %q: leave --backend out, or use another --data and move vDisks with `ovs vdisk export` and `import`", o.dir.Path, kind, o.backend)
	}
	return kind, nil
}

// recordedBackend tells which backend a data directory has, "" if it has none yet. If
// the directory's record names a backend, that counts, whatever else is there.
func recordedBackend(o openOptions) (string, error) {
	record := o.dir.Record()
	switch {
	case groups.Knows(record, albahere.Specs()[0].Name):
		return BackendALBA, nil
	}
	if id, err := readProxied(o.fs, o.dir.Path); err != nil || id != uuid.Nil {
		return BackendProxy, err
	}
	if groups.Knows(record, registryGroup) {
		return BackendLocal, nil
	}
	for kind, name := range map[string]string{BackendLocal: localDir, BackendALBA: filepath.Join("arakoon", "abm")} {
		_, err := o.fs.Stat(filepath.Join(o.dir.Path, name))
		switch {
		case err == nil:
			return kind, nil
		case !errors.Is(err, fs.ErrNotExist):
			return "", err
		}
	}
	return "", nil
}

// openGroups opens the groups of the data directory. It does not make a group anew that
// was made before.
func (e *embedded) openGroups(ctx context.Context, o openOptions, kind string) (err error) {
	specs, err := groupSpecs(o, kind)
	if err == nil && e.members != nil {
		specs, err = e.members.Specs()
	}
	if err != nil {
		return err
	}
	e.groups, err = groups.Open(ctx, groups.Options{FS: o.fs, Dir: o.dir.Path, ID: o.dir.ID, Ledger: o.dir, Logger: o.logger, OnFull: e.lacks}, specs...)
	return err
}

// groupSpecs are the groups of a data directory with that kind of backend.
func groupSpecs(o openOptions, kind string) ([]groups.Spec, error) {
	// The vDisks' own directories are made after the registry's group. An exception is a
	// directory of the one release that kept the registry in files: these are imported.
	of := groups.Spec{Name: registryGroup, After: []string{"buffer", "map"}}
	old, err := registry.Importable(o.fs, filepath.Join(o.dir.Path, registryDir))
	if err != nil {
		return nil, err
	}
	if old {
		of.After = nil
	}
	specs := []groups.Spec{of}
	if kind == BackendALBA {
		specs = append(specs, albahere.Specs()...)
	}
	return specs, nil
}

// config is the config group for those who use its keys: the member here, or whoever leads.
func (e *embedded) config() configGroup {
	if e.members != nil {
		return e.members.Store(registryGroup)
	}
	return e.groups.User(registryGroup)
}

// configGroup is what users of the config group need of it.
type configGroup interface {
	registrykeys.Node
	treekeys.Node
}

// openOutside opens a backend that needs no groups.
func (e *embedded) openOutside(ctx context.Context, o openOptions, kind string) error {
	if kind != BackendProxy && len(o.proxies) > 0 {
		return fmt.Errorf("data directory %s has the backend %q, and --proxies is for %q: leave it out", o.dir.Path, kind, BackendProxy)
	}
	switch kind {
	case BackendLocal:
		return e.openLocal(o)
	case BackendProxy:
		return e.openProxies(ctx, o)
	}
	return nil
}

// openLocal opens the backend in a directory.
func (e *embedded) openLocal(o openOptions) error {
	if o.alba.set() {
		return fmt.Errorf("data directory %s has the backend %q, and flags of %q were given: leave them out", o.dir.Path, BackendLocal, BackendALBA)
	}
	e.local = filepath.Join(o.dir.Path, localDir)
	if record := o.dir.Record(); record.Settled > 0 {
		if _, err := o.fs.Stat(e.local); errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("the objects of all vDisks are missing: %w: restore the directory; nothing was changed", err)
		}
	}
	b, err := local.Open(o.fs, e.local, local.Options{})
	if err == nil {
		e.backend = b
	}
	return err
}

// openALBA opens the backend of disks, or makes it.
func (e *embedded) openALBA(ctx context.Context, o openOptions) error {
	opt, err := o.alba.options(o)
	if err != nil {
		return err
	}
	opt.Groups, opt.AcceptOlder = e.groups, o.acceptOlder
	if u, err := o.fs.Statfs(o.dir.Path); err == nil {
		opt.Leave = uint64(writebuffer.Reserve(u.Total) / 2) // the write buffer gives way before that
	}
	if e.members != nil {
		opt.Node = func(name string, _ cluster.Node) cluster.Node { return e.members.Store(name) }
	}
	opt.Remote, opt.Zone = o.remote, o.zone
	if o.tune != nil {
		o.tune(&opt)
	}
	e.spare.needs("cache")
	b, err := albahere.Open(ctx, opt)
	if err != nil {
		return err
	}
	e.backend, e.alba = b, b
	return notePlain(ctx, b, o)
}

// BufferPlain is said wherever an encrypted vDisk is shown.
const BufferPlain = "the write buffer holds plain text"

// notePlain tells whoever encrypts vDisks what is not encrypted: an administrator who
// sells a disk or sends it in must know that it matters which disk that is.
func notePlain(ctx context.Context, b *albahere.Backend, o openOptions) error {
	presets, err := b.Presets(ctx)
	if err != nil {
		return err
	}
	var sealed []string
	for _, p := range presets {
		if p.Scheme.Cipher != preset.CipherNone {
			sealed = append(sealed, p.Name)
		}
	}
	if len(sealed) > 0 {
		o.logger.Warn("presets encrypt what is stored; "+BufferPlain, "presets", sealed, "dir", filepath.Join(o.dir.Path, "buffer"))
	}
	return nil
}

// openRegistry opens the registry on a group of its own. What an older release
// kept in DIR/registry is imported.
func (e *embedded) openRegistry(ctx context.Context, o openOptions) error {
	var node registrykeys.Node = e.config()
	if o.node != nil {
		node = o.node(node)
	}
	keys := registrykeys.New(node)
	n, err := registry.Import(ctx, keys, o.fs, filepath.Join(o.dir.Path, registryDir))
	if err != nil {
		return err
	}
	if n > 0 {
		o.logger.Info("registry of an older release imported", "vdisks", n)
	}
	if e.registry, err = registry.Open(ctx, keys); err != nil || e.alba == nil {
		return err
	}
	e.alba.Expect(e.namespaces)
	return nil
}

func (e *embedded) reached(ctx context.Context) (volumedriver.Reached, error) {
	b, err := e.groups.Witnessed(ctx, registryGroup, volumedriver.ReachedWitness)
	if err != nil {
		return nil, err
	}
	return volumedriver.DecodeReached(b)
}

// namespaces are those that vDisks live in, as the registry has them.
func (e *embedded) namespaces(ctx context.Context) (names []string, err error) {
	records, err := e.registry.List(ctx)
	for _, r := range records {
		if !r.Deleting {
			names = append(names, r.ID.String())
		}
	}
	return names, err
}

// owner says in the registry which process opened a vDisk.
func owner() string {
	name, err := os.Hostname()
	if err != nil {
		name = "unknown host"
	}
	return fmt.Sprintf("%.200s pid %d", name, os.Getpid())
}

// Collectors count what the vDisks, and what they rest on, do.
func (e *embedded) Collectors() []prometheus.Collector {
	list := []prometheus.Collector{e.Host.Collector(), albahere.GroupCollector{Name: registryGroup, Of: e.groups}}
	if e.alba != nil {
		list = append(list, e.alba)
	}
	if e.members != nil {
		list = append(list, e.members)
	}
	return append(list, e.held.gauge())
}

// FileKeys are the keys of what a mount keeps beside the vDisks.
func (e *embedded) FileKeys() filetree.Keys { return treekeys.New(e.config()) }

// Space is the room for data in bytes, without parity. A backend in a directory counts
// all of its file system, whoever uses it.
func (e *embedded) Space(ctx context.Context) (used, free uint64, err error) {
	if e.alba != nil {
		return e.alba.Space(ctx)
	}
	if e.local == "" {
		return e.backend.Usage(ctx)
	}
	u, err := e.fs.Statfs(e.local)
	return u.Total - u.Free, u.Free, err
}

// ALBA is the backend of disks for management, nil if the backend is of another kind.
func (e *embedded) ALBA() control.ALBA {
	if e.alba == nil {
		return nil // not an interface that holds nil
	}
	return managedALBA{e.alba, e.held.check}
}

// Close ends everything: the vDisks first, then what they rest on.
func (e *embedded) Close(ctx context.Context) error {
	return errors.Join(e.Host.Close(ctx), e.closeStores())
}

func (e *embedded) closeStores() error {
	var errs []error
	if e.registry != nil {
		errs = append(errs, e.registry.Close())
	}
	if e.backend != nil {
		errs = append(errs, e.backend.Close())
	}
	if e.members != nil {
		e.members.End()
	}
	if e.groups != nil {
		errs = append(errs, e.groups.Close())
	}
	return errors.Join(errs...)
}
