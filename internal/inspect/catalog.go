package inspect

import (
	"fmt"
	"io"
	"path/filepath"

	"openvstorage/volumedriver/catalog"
)

// Catalog verifies a catalog, and the segments beside it.
func Catalog(file string) (*catalog.Catalog, error) {
	root, _, err := readObject(file, catalog.RootMax)
	if err != nil {
		return nil, err
	}
	c, err := catalog.Decode(root, func(name string) ([]byte, error) {
		segment, _, err := readObject(filepath.Join(filepath.Dir(file), filepath.Base(name)), catalog.SegmentMax)
		return segment, err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return c, nil
}

// WriteCatalog writes, for people, what a catalog lists.
func WriteCatalog(w io.Writer, c *catalog.Catalog) {
	fmt.Fprintf(w, "vdisk\t%s\n", c.Volume)
	fmt.Fprintf(w, "epoch\t%d\n", c.Epoch)
	fmt.Fprintf(w, "generation\t%d\n", c.Generation)
	fmt.Fprintf(w, "size\t%s (%d bytes)\n", human(c.Size), c.Size)
	fmt.Fprintf(w, "created\t%s\n", when(c.Created))
	fmt.Fprintf(w, "next\tSCO %s, TLog %d, page object %d\n", c.NextSCO.Name(), c.NextTLog, c.NextObject)
	fmt.Fprintf(w, "stored\tup to seq %d\n", c.StoredSeq)
	if c.Deleting {
		fmt.Fprintln(w, "state\tbeing deleted")
	}
	for _, s := range c.Config {
		fmt.Fprintf(w, "setting %d\t%q, not known to this release\n", s.ID, s.Value)
	}
	p := c.Checkpoint
	fmt.Fprintf(w, "checkpoint\tseq %d, TLog %d, page generation %d, root page %#x of %d levels over %d clusters\n",
		p.Seq, p.TLog, p.Generation, p.Root.Page, p.Root.Levels, p.Root.Clusters)
	for i, o := range c.Origins {
		fmt.Fprintf(w, "origin %d\t%s at snapshot %s\n", i, o.Volume, o.Snapshot)
	}
	for _, s := range c.Snapshots {
		fmt.Fprintf(w, "snapshot\t%q %s: seq %d, %s, %s\n", s.Name, s.ID, s.Seq, human(s.Size), when(s.Created))
		if s.Meta != "" {
			fmt.Fprintf(w, "metadata\t%q\n", s.Meta)
		}
	}
	for _, ch := range c.Children {
		stored := ""
		if ch.Unstored {
			stored = ", which was not stored then"
		}
		fmt.Fprintf(w, "child\t%s of snapshot %s%s\n", ch.Volume, ch.Snapshot, stored)
	}
	for _, e := range c.Epochs {
		fmt.Fprintf(w, "epoch start\t%d after seq %d\n", e.Epoch, e.Base)
	}
	for _, t := range c.TLogs {
		fmt.Fprintf(w, "tlog\t%d: seq %d to %d, %s\n", t.Number, t.FirstSeq, t.LastSeq, human(uint64(t.Size)))
	}
	for _, o := range c.Pages {
		fmt.Fprintf(w, "pages\tobject %d: pages %d to %d, %d live, %s\n", o.Number, o.First, o.End, o.Pages, human(uint64(o.Size)))
	}
}
