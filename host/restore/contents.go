package restore

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"github.com/google/uuid"

	"openvstorage/alba/abm"
	"openvstorage/alba/nsm"
	"openvstorage/arakoon/groups"
	"openvstorage/arakoon/roster"
	"openvstorage/arakoon/state"
	"openvstorage/volumedriver"
	"openvstorage/volumedriver/registry"
)

// Names of groups. A release that does not know a group cannot raise its numbers.
const (
	configGroup = "registry"
	disksGroup  = "abm"
	nsmPrefix   = "nsm-"
)

// Backup is where the backup of one group is.
type Backup struct {
	Group string
	Open  func() (io.ReadCloser, error) // from its beginning, as often as it is called
}

// contents is what the backups say, all together.
type contents struct {
	infos      map[string]state.BackupInfo
	backend    uuid.UUID // ID in the disks group; zero: the backend is of another kind
	life       uint64    // newest of all
	generation uint64    // newest that a group has seen
	vdisks     []registry.Record
	disks      []abm.OSD
	reached    volumedriver.Reached
	roster     roster.Roster
}

// read reads all backups to their ends.
func read(backups []Backup) (*contents, error) {
	c := &contents{infos: map[string]state.BackupInfo{}}
	for _, b := range backups {
		if b.Group != configGroup && b.Group != disksGroup && !strings.HasPrefix(b.Group, nsmPrefix) {
			return nil, fmt.Errorf("group %q is not one that this release can restore: it does not know what numbers the group gives out", b.Group)
		}
		if _, twice := c.infos[b.Group]; twice {
			return nil, fmt.Errorf("there are two backups of group %s", b.Group)
		}
		info, err := c.scan(b)
		if err != nil {
			return nil, fmt.Errorf("backup of group %s: %w", b.Group, err)
		}
		if info.Group != b.Group {
			return nil, fmt.Errorf("backup of group %s: it is of group %q", b.Group, info.Group)
		}
		c.infos[b.Group], c.life = info, max(c.life, info.Life)
	}
	return c, c.check()
}

// check refuses what is not the whole of a cluster's groups.
func (c *contents) check() error {
	hasNSM := false
	for name := range c.infos {
		hasNSM = hasNSM || strings.HasPrefix(name, nsmPrefix)
	}
	_, config := c.infos[configGroup]
	if _, disks := c.infos[disksGroup]; !config || disks != hasNSM {
		return fmt.Errorf("the backup is of the groups %s, and these are not all of a cluster: groups name records of each other, so all are restored from one backup of `ovs backup metadata`", strings.Join(c.names(), ", "))
	}
	c.roster.Sort()
	for _, g := range c.roster.Groups {
		c.life = max(c.life, g.Life)
	}
	if c.life >= 1<<24 || c.generation > math.MaxUint64/2 {
		return fmt.Errorf("life %d, generation %d: these are no numbers that a group can have", c.life, c.generation)
	}
	return c.roster.Check()
}

func (c *contents) names() (names []string) {
	for name := range c.infos {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func (c *contents) scan(b Backup) (info state.BackupInfo, err error) {
	f, err := b.Open()
	if err != nil {
		return info, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return state.Scan(bufio.NewReaderSize(f, 1<<20), func(key, value []byte) error { return c.take(b.Group, key, value) })
}

// take takes what matters of one key.
func (c *contents) take(group string, key, value []byte) error {
	m, ok, err := groups.MarkIn(key, value)
	if err != nil || ok {
		c.generation = max(c.generation, m.Number)
		return err
	}
	switch group {
	case disksGroup:
		_, b, err := abm.Restored(key, value, 0)
		if b != nil {
			c.backend = b.ID
		}
		if err != nil {
			return err
		}
		o, err := abm.OSDIn(key, value)
		if o != nil && err == nil && o.State != abm.OSDLost && o.Number != 0 {
			c.disks = append(c.disks, *o)
		}
		return err
	case configGroup:
		if name, ok := groups.WitnessIn(key); ok && name == volumedriver.ReachedWitness {
			c.reached, err = volumedriver.DecodeReached(value)
			return err
		}
		_, r, err := registry.Restored(key, value, 0)
		if r != nil {
			c.vdisks = append(c.vdisks, *r)
		}
		if err != nil {
			return err
		}
		return c.roster.TakeAny(key, value)
	}
	_, err = nsm.Restored(key, value, 0)
	return err
}

// raised is what a group's key is to be in the restored group, whose numbers go on by so much
// behind those of the backup.
func raised(group string, by uint64) func(key, value []byte) ([]byte, error) {
	switch group {
	case disksGroup:
		return func(key, value []byte) ([]byte, error) {
			value, _, err := abm.Restored(key, value, by)
			return value, err
		}
	case configGroup:
		return func(key, value []byte) ([]byte, error) {
			value, _, err := registry.Restored(key, value, by)
			return value, err
		}
	}
	return func(key, value []byte) ([]byte, error) { return nsm.Restored(key, value, by) }
}
