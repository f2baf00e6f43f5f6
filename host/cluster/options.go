package cluster

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"openvstorage/arakoon/state"
	"openvstorage/host/roster"
	"openvstorage/internal/datadir"
	"openvstorage/internal/disk"
	"openvstorage/internal/wire"
	"openvstorage/trust"
)

// Level is the feature level of this release, which is the newest level of a group that it
// knows (package arakoon/state). A host says it in each preface: it is what the process at the
// other end of that connection runs, whatever the host ran before. Its record has it too, for
// people alone.
const Level = state.LevelNewest

// LevelOf is the level that a host knows which says level. The first release that made
// clusters said 1, and knew the steps of level 2.
func LevelOf(level uint32) uint32 { return max(level, state.LevelSteps) }

// Config is what a user says about a host in a cluster.
type Config struct {
	Listen  string   // HOST:PORT by which other hosts reach this one; "": there is no cluster
	Storage []string // HOST:PORT for traffic of storage too; at most roster.AddressesMax
	Zone    string   // where the host is; see roster.CheckZone
	// RequireZones is in how many zones everything is to be held before it is answered, said
	// by the first host at its first start; 0: nothing is said. 1: no requirement.
	RequireZones int
	Insecure     bool // connections without TLS are taken too, but for joins and renewals
	// Join is the line of a token, needed at the first start of a host that joins; or @ and
	// the name of the file that had it and is not there any more.
	Join  string
	Names []string // other names and addresses of the machine, for its certificate
	// Roles are what the host does from its first start on, 0: what its token says, or all of
	// a first host. Later they are changed by Management.SetRoles alone.
	Roles trust.Roles
	// Passphrase reads what the authority's key is sealed under. nil: it is in
	// DIR/trust/passphrase, where a first host puts one that it makes at random. A host that
	// has joined signs certificates if it has it.
	Passphrase func(context.Context) ([]byte, error)
}

// Check returns nil if a configuration can work.
func (c *Config) Check() error {
	if c.Listen == "" {
		if len(c.Storage) > 0 || c.Zone != "" || c.RequireZones != 0 || c.Join != "" || c.Roles != 0 || c.Passphrase != nil {
			return errors.New("--storage-address, --zone, --require-zones, --roles, --join and the passphrase of the authority need an address that other hosts reach: give --listen HOST:PORT")
		}
		return nil
	}
	if len(c.Storage) > roster.AddressesMax {
		return fmt.Errorf("--storage-address: %d addresses, at most %d", len(c.Storage), roster.AddressesMax)
	}
	for i, a := range append([]string{c.Listen}, c.Storage...) {
		flag := "--listen"
		if i > 0 {
			flag = "--storage-address"
		}
		if host, port, err := net.SplitHostPort(a); err == nil && port == "0" { // the system chooses one
			a = net.JoinHostPort(host, "1")
		}
		if err := roster.CheckAddress(a); err != nil {
			return fmt.Errorf("%s: %w", flag, err)
		}
	}
	switch {
	case c.RequireZones < 0 || c.RequireZones > state.ZonesMax:
		return fmt.Errorf("--require-zones: %d zones; 1 to %d can be required", c.RequireZones, state.ZonesMax)
	case c.RequireZones > 0 && c.Join != "":
		return errors.New("--require-zones is said by the first host: leave it out with --join; `ovs arakoon require-zones` changes it")
	case c.RequireZones > 1 && c.Zone == "":
		return errors.New("--require-zones counts the zones that hosts are in: say where this one is with --zone")
	}
	if err := roster.CheckZone(c.Zone); err != nil {
		return fmt.Errorf("--zone: %w", err)
	}
	return nil
}

// firstRoles are those that a first host must have in this release: the vDisks and the disks
// are on it, and it uses the groups, wherever their members are.
const firstRoles = trust.RoleDriver | trust.RoleProxy | trust.RoleASD | trust.RoleArakoon | trust.RoleMaintenance

// mayLead refuses roles that a first host cannot do without.
func mayLead(roles trust.Roles) error {
	if lacks := firstRoles &^ roles; lacks != 0 {
		return fmt.Errorf("the first host of a cluster has its vDisks and disks in this release, so it needs the roles %s too", lacks)
	}
	return nil
}

// Options are those of Lead and Resume. Fields without a default are needed.
type Options struct {
	Config
	FS      disk.FS
	Dir     *datadir.Directory
	Release string // of this binary
	Logger  *slog.Logger
	// Listeners are those that Listen took. They are the Host's from then on, and closed if
	// there is an error.
	Listeners *Listeners
	// Services are offered besides those of this package.
	Services map[string]*wire.Service
	Conns    int              // connections at a time; 0: the default of package wire
	Now      func() time.Time // nil: time.Now
	// Every is how often the records are looked at. 0: 10 s.
	Every time.Duration
	// Holders says on which hosts members of the config group are, and where these hosts are,
	// as this host knows it: records are read there. It must not block. nil: only the first
	// host has one.
	Holders func() []Place
	// Records is the config group for a host that has joined, whether it holds a member or not:
	// it changes records there, if it has the role arakoon. It is not asked for reads that
	// have to work without a quorum. nil: the host changes nothing.
	Records trust.Store
	// Members is what this host knows of the members of groups; nil: there are none.
	Members Members
	// InSync says in words whether a host holds all that is answered here, "" where that is not
	// asked of it. nil: of none.
	InSync func(host uuid.UUID) string
	// Least is the level that other hosts must know, that of the groups here: those of an older
	// release are refused by name, and so is the join of one. It must not block. nil: any.
	Least func() uint32
	// Wait bounds how long the start of a host that has joined waits for the first host
	// before it goes by what it has seen. 0: 10 s.
	Wait time.Duration
	// Changed is called when the records have changed, and what they refuse is to be ended.
	// It must not wait for long. nil: nobody is told.
	Changed func(*Host)
}

func (o *Options) ensureDefaults() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Wait == 0 {
		o.Wait = 10 * time.Second
	}
	if o.Changed == nil {
		o.Changed = func(*Host) {}
	}
	if o.Members == nil {
		o.Members = noMembers{}
	}
	if o.InSync == nil {
		o.InSync = func(uuid.UUID) string { return "" }
	}
	if o.Holders == nil {
		o.Holders = func() []Place { return nil }
	}
}

// least is the level that a peer must say: none is asked for that all releases know which made
// clusters.
func (o *Options) least() uint32 {
	if o.Least == nil {
		return 0
	}
	if l := o.Least(); l > LevelOf(0) {
		return l
	}
	return 0
}

// Members are the members of groups, for management.
type Members interface {
	// Leave gets a host ready to be removed: its members go elsewhere, unless it is lost.
	Leave(ctx context.Context, host uuid.UUID, lost bool) error
	// Drain has all members leave a host that stays one of the cluster, and tells how many of
	// them have left until all have, or ctx ends: then they go on leaving. Undrain ends that.
	Drain(ctx context.Context, host uuid.UUID, left func(done, total int64)) error
	Undrain(ctx context.Context, host uuid.UUID) error
	// Maintain begins or ends the maintenance of a host.
	Maintain(ctx context.Context, host uuid.UUID, on bool) error
	// Mode says whether members leave a host, and whether it is in maintenance.
	Mode(host uuid.UUID) (leaves, maintenance bool)
	// On are the members on a host.
	On(host uuid.UUID) []string
	// Safety says in words how many hosts the groups can lose.
	Safety() string
	// Alarms says in words what is wrong with members, as this host knows.
	Alarms() []string
}

// noMembers is where there are none.
type noMembers struct{}

func (noMembers) Leave(context.Context, uuid.UUID, bool) error { return nil }
func (noMembers) Undrain(context.Context, uuid.UUID) error     { return nil }
func (noMembers) Mode(uuid.UUID) (bool, bool)                  { return false, false }
func (noMembers) On(uuid.UUID) []string                        { return nil }
func (noMembers) Safety() string                               { return "" }
func (noMembers) Alarms() []string                             { return nil }

func (noMembers) Drain(context.Context, uuid.UUID, func(done, total int64)) error { return nil }
func (noMembers) Maintain(context.Context, uuid.UUID, bool) error                 { return nil }

// Place is a host and its addresses.
type Place struct {
	Host      uuid.UUID
	Addresses []string
}

// trustDir is the directory of this package in a data directory.
const trustDir = "trust"

func (o *Options) file(name string) string { return path.Join(o.Dir.Path, trustDir, name) }

// makeDir makes the directory of this package, durably.
func (o *Options) makeDir() error {
	if err := o.FS.MkdirAll(path.Join(o.Dir.Path, trustDir), 0o700); err != nil {
		return err
	}
	return o.FS.SyncDir(o.Dir.Path)
}

// Listeners are the addresses of a host.
type Listeners struct {
	all       []net.Listener
	addresses []string // as others dial them, in the order of all
	also      []string // names besides
}

// Listen takes the addresses of a configuration.
func Listen(ctx context.Context, c Config) (_ *Listeners, err error) {
	l := &Listeners{also: c.Names}
	defer func() {
		if err != nil {
			l.Close()
		}
	}()
	for _, a := range append([]string{c.Listen}, c.Storage...) {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", a)
		if err != nil {
			return nil, fmt.Errorf("listen for other hosts: %w", err)
		}
		l.all = append(l.all, ln)
		host, _, err := net.SplitHostPort(a)
		if err != nil {
			return nil, err
		}
		_, port, err := net.SplitHostPort(ln.Addr().String())
		if err != nil {
			return nil, err
		}
		l.addresses = append(l.addresses, net.JoinHostPort(plainName(host), port))
	}
	return l, nil
}

// Close gives the addresses up. Those that are served are closed already.
func (l *Listeners) Close() {
	for _, ln := range l.all {
		_ = ln.Close()
	}
}

// Addresses are those that others dial: the first is that of --listen.
func (l *Listeners) Addresses() []string { return l.addresses }

// names are the machine's names in its certificate, each once.
func (l *Listeners) names() (all []string) {
	seen := map[string]bool{}
	for _, a := range slices.Concat(l.addresses, l.also) {
		host := a
		if h, _, err := net.SplitHostPort(a); err == nil {
			host = h
		}
		host = plainName(host)
		if ip := net.ParseIP(host); ip != nil && ip.IsUnspecified() {
			continue
		}
		if !seen[host] {
			seen[host] = true
			all = append(all, host)
		}
	}
	return all
}

// plainName is the one way in which certificates and tokens have a machine's name or IP
// address.
func plainName(host string) string {
	if ip := net.ParseIP(host); ip != nil {
		return ip.String()
	}
	return strings.ToLower(strings.TrimSuffix(host, "."))
}

// draw returns a random number that is not zero.
func draw() (uint64, error) {
	var b [8]byte
	for {
		if _, err := rand.Read(b[:]); err != nil {
			return 0, fmt.Errorf("random number: %w", err)
		}
		if n := binary.LittleEndian.Uint64(b[:]); n != 0 {
			return n, nil
		}
	}
}
