package recovery

import (
	"encoding/json"
	"fmt"
	"path"
	"time"

	"openvstorage/internal/disk"
	"openvstorage/internal/format"
)

// decisionFile is what a person has decided, in the data directory.
const decisionFile = "recovery.json"

// decisionMax bounds the file in bytes.
const decisionMax = 1 << 20

// decisionVersion is the newest that this release reads. It writes decisionAnew of a group
// that is made anew, which an older release would take for a member that is here, and else
// decisionAlone.
const (
	decisionAlone   = 1
	decisionAnew    = 2
	decisionVersion = decisionAnew
)

// decision is the file: what was decided, when, and whether it is done. It stays when it is
// done, and the next recovery replaces it.
type decision struct {
	Version int       `json:"version"`
	Life    uint64    `json:"life"`
	Began   time.Time `json:"began"`
	Done    bool      `json:"done"`
	Groups  []Group   `json:"groups"` // as they were before
	GivenUp []Other   `json:"given_up"`
}

func (d *decision) names() (names []string) {
	for _, g := range d.Groups {
		names = append(names, g.Name)
	}
	return names
}

// from is what the groups go on with.
func (d *decision) from() From {
	if d.Version < decisionAnew || len(d.Groups) == 0 {
		return FromSurvivor
	}
	return d.Groups[0].From
}

// flags are what `ovs recover` is to be given to finish it, with a space behind them.
func (d *decision) flags() string {
	switch d.from() {
	case FromBackup:
		return d.Groups[0].Name + " FILE --from backup "
	case FromNothing:
		return d.Groups[0].Name + " --from nothing "
	}
	return ""
}

// readDecision returns nil if nothing was ever decided.
func readDecision(fsys disk.FS, dir string) (*decision, error) {
	name := path.Join(dir, decisionFile)
	b, err := disk.ReadWhole(fsys, name, decisionMax)
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	d := new(decision)
	if err := json.Unmarshal(b, d); err != nil {
		return nil, fmt.Errorf("%s: %w: %w", name, format.ErrCorrupt, err)
	}
	if d.Version > decisionVersion {
		return nil, fmt.Errorf("%s: %w: version %d, this release reads up to %d", name, format.ErrNewer, d.Version, decisionVersion)
	}
	return d, nil
}

func (d *decision) write(fsys disk.FS, dir string) error {
	b, err := json.MarshalIndent(d, "", "  ")
	if err != nil {
		return err
	}
	return disk.ReplaceWhole(fsys, path.Join(dir, decisionFile), append(b, '\n'))
}
