package catalog

import (
	"errors"
	"fmt"

	"openvstorage/sco"

	"github.com/google/uuid"
)

// faultsMax bounds how many contradictions one Validate lists.
const faultsMax = 16

// faults gathers contradictions.
type faults struct {
	list  []error
	total int
}

func (f *faults) add(text string, args ...any) {
	if f.total++; len(f.list) < faultsMax {
		f.list = append(f.list, fmt.Errorf(text, args...))
	}
}

// Validate returns nil if nothing in the catalog contradicts anything else in it.
// Otherwise it returns an ErrInvalid that lists the contradictions. Encode and Decode
// refuse a catalog that Validate refuses.
func (c *Catalog) Validate() error {
	var f faults
	if c.Volume == uuid.Nil {
		f.add("it has no volume id")
	}
	if c.NextSCO > sco.MaxNumber+1 {
		f.add("next SCO number %d is above the largest, %d", c.NextSCO, sco.MaxNumber)
	}
	c.validateConfig(&f)
	c.validateOrigins(&f)
	c.validateEpochs(&f)
	c.validateTLogs(&f)
	c.validateSnapshots(&f)
	c.validatePages(&f)
	if f.total == 0 {
		return nil
	}
	if f.total > len(f.list) {
		f.list = append(f.list, fmt.Errorf("and %d more", f.total-len(f.list)))
	}
	return fmt.Errorf("%w: vDisk %s: generation %d: %w", ErrInvalid, c.Volume, c.Generation, errors.Join(f.list...))
}

func (c *Catalog) validateConfig(f *faults) {
	var last uint16
	size := 0
	for _, s := range c.Config {
		if s.ID <= last {
			f.add("setting %d comes after setting %d", s.ID, last)
		}
		if !s.Optional {
			f.add("setting %d must be known, and is not", s.ID)
		}
		if len(s.Value) > SettingMax {
			f.add("setting %d has %d bytes, %d are allowed", s.ID, len(s.Value), SettingMax)
		}
		last, size = s.ID, size+settingFixed+len(s.Value)
	}
	if size > configMax {
		f.add("settings of %d bytes, %d are allowed", size, configMax)
	}
}

func (c *Catalog) validateOrigins(f *faults) {
	n := len(c.Origins)
	if n == 0 || c.Origins[n-1].Volume != c.Volume {
		f.add("the last origin is not the vDisk itself")
		return
	}
	if n > int(sco.MaxOrigin)+1 {
		f.add("%d origins, a location can tell %d apart", n, int(sco.MaxOrigin)+1)
	}
	seen := make(map[uuid.UUID]int, n)
	for i, o := range c.Origins {
		if first, twice := seen[o.Volume]; twice {
			f.add("origins %d and %d are the same vDisk %s", first, i, o.Volume)
		}
		seen[o.Volume] = i
		if o.Volume == uuid.Nil {
			f.add("origin %d has no volume id", i)
		}
		if self := i == n-1; self != (o.Snapshot == uuid.Nil) {
			f.add("origin %d of %d has snapshot %s", i, n, o.Snapshot)
		}
	}
}

func (c *Catalog) validateEpochs(f *faults) {
	var last uint64
	for i, e := range c.Epochs {
		if i > 0 && e.Epoch <= last {
			f.add("epoch %d comes after epoch %d", e.Epoch, last)
		}
		last = e.Epoch
	}
	if last > c.Epoch {
		f.add("it was written by epoch %d, yet epoch %d has begun", c.Epoch, last)
	}
}

// validateTLogs checks that the TLogs continue the checkpoint without a gap. An entry
// whose seq is neither under the checkpoint nor in a TLog would be lost.
func (c *Catalog) validateTLogs(f *faults) {
	seq := c.Checkpoint.Seq
	for i, t := range c.TLogs {
		if i > 0 && t.Number <= c.TLogs[i-1].Number {
			f.add("TLog %d comes after TLog %d", t.Number, c.TLogs[i-1].Number)
		}
		if t.Number >= c.NextTLog {
			f.add("TLog %d is in use, the next to be used is %d", t.Number, c.NextTLog)
		}
		if t.FirstSeq != seq+1 {
			f.add("TLog %d begins with seq %d, %d was to follow", t.Number, t.FirstSeq, seq+1)
		}
		if t.LastSeq < t.FirstSeq {
			f.add("TLog %d ends with seq %d before it begins with %d", t.Number, t.LastSeq, t.FirstSeq)
		}
		if t.Size < 0 {
			f.add("TLog %d has %d bytes", t.Number, t.Size)
		}
		seq = t.LastSeq
	}
	if len(c.TLogs) > 0 && c.Checkpoint.Seq > 0 && c.TLogs[0].Number <= c.Checkpoint.TLog {
		f.add("TLog %d comes after the checkpoint, which ends with TLog %d", c.TLogs[0].Number, c.Checkpoint.TLog)
	}
	if c.StoredSeq != seq {
		f.add("stored seq is %d, the checkpoint and TLogs reach %d", c.StoredSeq, seq)
	}
}

func (c *Catalog) validateSnapshots(f *faults) {
	ids := make(map[uuid.UUID]bool, len(c.Snapshots))
	names := make(map[string]bool, len(c.Snapshots))
	for _, s := range c.Snapshots {
		if s.ID == uuid.Nil || ids[s.ID] || s.ID == s.Parent {
			f.add("snapshot %q: id %s is nil, used twice or its own parent", s.Name, s.ID)
		}
		ids[s.ID] = true
		if s.Name == "" && !s.Auto || len(s.Name) > nameMax || s.Name != "" && names[s.Name] {
			f.add("snapshot %s: name %.40q of %d bytes is empty, too long or used twice", s.ID, s.Name, len(s.Name))
		}
		names[s.Name] = true
		if len(s.Meta) > MetaMax {
			f.add("snapshot %q has %d bytes of metadata, %d are allowed", s.Name, len(s.Meta), MetaMax)
		}
		if s.NextSCO > c.NextSCO {
			f.add("snapshot %q sees SCOs up to number %d, the vDisk has used %d", s.Name, s.NextSCO, c.NextSCO)
		}
		if s.HasRoot && s.Seq > c.Checkpoint.Seq {
			f.add("snapshot %q has a root at seq %d, the checkpoint ends at %d", s.Name, s.Seq, c.Checkpoint.Seq)
		}
	}
	clones := make(map[uuid.UUID]bool, len(c.Children))
	for _, k := range c.Children {
		if k.Volume == uuid.Nil || k.Volume == c.Volume || clones[k.Volume] {
			f.add("child %s is nil, the vDisk itself or listed twice", k.Volume)
		}
		clones[k.Volume] = true
		if !ids[k.Snapshot] { // O7: the snapshot keeps alive what the child reads
			f.add("child %s hangs off snapshot %s, which is not there", k.Volume, k.Snapshot)
		}
	}
}

func (c *Catalog) validatePages(f *faults) {
	numbers := make(map[uint64]bool, len(c.Pages))
	var end uint64
	for _, p := range c.Pages {
		if p.First >= p.End || p.First < end {
			f.add("page object %d has pages [%d, %d), the one before ends at %d", p.Number, p.First, p.End, end)
		}
		end = max(end, p.End)
		if numbers[p.Number] || p.Number >= c.NextObject {
			f.add("page object number %d is used twice, or not below the next to be used, %d", p.Number, c.NextObject)
		}
		numbers[p.Number] = true
		if p.Size < 0 || p.End >= p.First && uint64(p.Pages) > p.End-p.First {
			f.add("page object %d has %d pages in [%d, %d) and %d bytes", p.Number, p.Pages, p.First, p.End, p.Size)
		}
	}
	if end > c.Checkpoint.NextPage {
		f.add("page objects reach page %d, the checkpoint's pages end at %d", end, c.Checkpoint.NextPage)
	}
}
