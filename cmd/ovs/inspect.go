package main

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/internal/inspect"
)

// inspectCommands are the commands of `ovs inspect`, one for each format. Damage is
// what they are called for, so they print what could be read, and fail after that.
type inspectCommands struct{ *app }

func (cmds inspectCommands) group() *cobra.Command {
	return group("inspect", "dump and verify files and objects; files without a running ovs up",
		cmds.sco(), cmds.tlog(), cmds.catalog(), cmds.manifest(), cmds.segment(), cmds.raftLog())
}

func (cmds inspectCommands) sco() *cobra.Command {
	var blocks bool
	c := &cobra.Command{
		Use:   "sco FILE",
		Short: "verify an SCO: header, every commit block, every cluster, footer",
		Args:  wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := inspect.SCO(args[0])
			if err != nil {
				return err
			}
			if !blocks {
				r.Blocks = nil
			}
			if err := cmds.printShort(r, r.Write); err != nil {
				return err
			}
			return r.Damage.Err(args[0])
		},
	}
	c.Flags().BoolVar(&blocks, "blocks", false, "list every cluster")
	return c
}

func (cmds inspectCommands) tlog() *cobra.Command {
	return &cobra.Command{
		Use:   "tlog FILE",
		Short: "verify a TLog and list its entries",
		Args:  wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := inspect.TLog(args[0])
			if err != nil {
				return err
			}
			if err := cmds.printShort(r, r.Write); err != nil {
				return err
			}
			return r.Err(args[0])
		},
	}
}

func (cmds inspectCommands) catalog() *cobra.Command {
	return &cobra.Command{
		Use:   "catalog FILE",
		Short: "verify a catalog, with the segments beside it, and show what it lists",
		Args:  wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := inspect.Catalog(args[0])
			if err != nil {
				return err
			}
			return cmds.print(c, func(w io.Writer) { inspect.WriteCatalog(w, c) })
		},
	}
}

func (cmds inspectCommands) manifest() *cobra.Command {
	raw := false
	c := &cobra.Command{
		Use:   "manifest FILE|NAMESPACE/OBJECT",
		Short: "verify and dump the manifest of an object, of a file or of the running ovs up",
		Long: `ovs inspect manifest verifies and dumps a manifest: which OSD has which fragment
of an object. It reads FILE if there is one; else it asks the running ovs up for
that of NAMESPACE/OBJECT, the namespace being named by its vDisk too.`,
		Example:           "  ovs inspect manifest disk1/sco-000000001\n  ovs inspect manifest disk1/catalog --raw > catalog.manifest",
		Args:              wants("FILE|NAMESPACE/OBJECT"),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := cmds.readManifest(c, args[0])
			if err != nil {
				return err
			}
			if raw {
				_, err := cmds.stdout.Write(b)
				return err
			}
			m, err := inspect.DecodeManifest(b, args[0])
			if err != nil {
				return err
			}
			return cmds.print(m, m.Write)
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "write the manifest as it is, unverified")
	return c
}

// readManifest reads an encoded manifest: from a file, or if there is none, from the running
// `ovs up`.
func (cmds inspectCommands) readManifest(c *cobra.Command, from string) ([]byte, error) {
	b, err := inspect.ManifestFile(from)
	// Names of vDisks may have slashes in them and names of objects may not, so the last
	// slash separates the two.
	slash := strings.LastIndex(from, "/")
	if !errors.Is(err, os.ErrNotExist) || slash < 1 {
		return b, err
	}
	client, err := cmds.client()
	if err != nil {
		return nil, err
	}
	return client.Manifest(c.Context(), from[:slash], from[slash+1:])
}

func (cmds inspectCommands) segment() *cobra.Command {
	entries := false
	c := &cobra.Command{
		Use:   "segment FILE",
		Short: "verify a segment of an ASD: header, every batch, every value and its checksums",
		Long: `ovs inspect segment verifies all that a segment of an ASD (DIR/asd/N/*.seg)
holds. It goes on behind what is damaged, and ends with exit code 1 if there was
any. Of a segment that is being written the last batch may be incomplete.`,
		Args: wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := inspect.Segment(args[0])
			if err != nil {
				return err
			}
			if !entries {
				r.Entries = nil
			}
			if err := cmds.printShort(r, r.Write); err != nil {
				return err
			}
			return r.Damage.Err(args[0])
		},
	}
	c.Flags().BoolVar(&entries, "entries", false, "list every put and delete")
	return c
}

func (cmds inspectCommands) raftLog() *cobra.Command {
	return &cobra.Command{
		Use:   "raftlog FILE",
		Short: "verify a segment of a raft log: header, every record",
		Long: `ovs inspect raftlog verifies a segment of an Arakoon group's log
(DIR/arakoon/GROUP/log/*.raft). Damage behind the last record that is known to have
been synced is what a power cut leaves, and not told.`,
		Args: wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := inspect.RaftLog(args[0])
			if err != nil {
				return err
			}
			if err := cmds.printShort(r, r.Write); err != nil {
				return err
			}
			return r.Damage.Err(args[0])
		},
	}
}
