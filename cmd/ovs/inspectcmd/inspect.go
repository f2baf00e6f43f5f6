// Package inspectcmd is the commands of `ovs inspect`.
package inspectcmd

import (
	"errors"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/internal/inspect"
)

// Tools are what commands need of the program.
type Tools struct {
	clustercmd.Tools
	// PrintShort is Print, and leaves out the lists that are printed only when a flag asks
	// for them.
	PrintShort func(v any, text func(w io.Writer)) error
	Stdout     io.Writer
}

// commands are one for each format. Damage is what they are called for, so they print what
// could be read, and fail after that.
type commands struct{ Tools }

// Command is `ovs inspect`.
func Command(t Tools) *cobra.Command {
	cmds := commands{t}
	return t.Group("inspect", "dump and verify files and objects; files without a running ovs up",
		cmds.sco(), cmds.tlog(), cmds.catalog(), cmds.manifest(), cmds.segment(), cmds.raftLog())
}

func (cmds commands) sco() *cobra.Command {
	var blocks bool
	c := &cobra.Command{
		Use:   "sco FILE",
		Short: "verify an SCO: header, every commit block, every cluster, footer",
		Args:  cmds.Wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := inspect.SCO(args[0])
			if err != nil {
				return err
			}
			if !blocks {
				r.Blocks = nil
			}
			if err := cmds.PrintShort(r, r.Write); err != nil {
				return err
			}
			return r.Damage.Err(args[0])
		},
	}
	c.Flags().BoolVar(&blocks, "blocks", false, "list every cluster")
	return c
}

func (cmds commands) tlog() *cobra.Command {
	return &cobra.Command{
		Use:   "tlog FILE",
		Short: "verify a TLog and list its entries",
		Args:  cmds.Wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := inspect.TLog(args[0])
			if err != nil {
				return err
			}
			if err := cmds.PrintShort(r, r.Write); err != nil {
				return err
			}
			return r.Err(args[0])
		},
	}
}

func (cmds commands) catalog() *cobra.Command {
	return &cobra.Command{
		Use:   "catalog FILE",
		Short: "verify a catalog, with the segments beside it, and show what it lists",
		Args:  cmds.Wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			c, err := inspect.Catalog(args[0])
			if err != nil {
				return err
			}
			return cmds.Print(c, func(w io.Writer) { inspect.WriteCatalog(w, c) })
		},
	}
}

func (cmds commands) manifest() *cobra.Command {
	raw := false
	c := &cobra.Command{
		Use:   "manifest FILE|NAMESPACE/OBJECT",
		Short: "verify and dump the manifest of an object, of a file or of the running ovs up",
		Long: `ovs inspect manifest verifies and dumps a manifest: which OSD has which fragment
of an object. It reads FILE if there is one; else it asks the running ovs up for
that of NAMESPACE/OBJECT, the namespace being named by its vDisk too.`,
		Example:           "  ovs inspect manifest disk1/sco-000000001\n  ovs inspect manifest disk1/catalog --raw > catalog.manifest",
		Args:              cmds.Wants("FILE|NAMESPACE/OBJECT"),
		ValidArgsFunction: cobra.FixedCompletions(nil, cobra.ShellCompDirectiveDefault),
		RunE: func(c *cobra.Command, args []string) error {
			b, err := cmds.readManifest(c, args[0])
			if err != nil {
				return err
			}
			if raw {
				_, err := cmds.Stdout.Write(b)
				return err
			}
			m, err := inspect.DecodeManifest(b, args[0])
			if err != nil {
				return err
			}
			return cmds.Print(m, m.Write)
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, "write the manifest as it is, unverified")
	return c
}

// readManifest reads an encoded manifest: from a file, or if there is none, from the running
// `ovs up`.
func (cmds commands) readManifest(c *cobra.Command, from string) ([]byte, error) {
	b, err := inspect.ManifestFile(from)
	// Names of vDisks may have slashes in them and names of objects may not, so the last
	// slash separates the two.
	slash := strings.LastIndex(from, "/")
	if !errors.Is(err, os.ErrNotExist) || slash < 1 {
		return b, err
	}
	client, err := cmds.Client()
	if err != nil {
		return nil, err
	}
	return client.Manifest(c.Context(), from[:slash], from[slash+1:])
}

func (cmds commands) segment() *cobra.Command {
	entries := false
	c := &cobra.Command{
		Use:   "segment FILE",
		Short: "verify a segment of an ASD: header, every batch, every value and its checksums",
		Long: `ovs inspect segment verifies all that a segment of an ASD (DIR/asd/N/*.seg)
holds. It goes on behind what is damaged, and ends with exit code 1 if there was
any. Of a segment that is being written the last batch may be incomplete.`,
		Args: cmds.Wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := inspect.Segment(args[0])
			if err != nil {
				return err
			}
			if !entries {
				r.Entries = nil
			}
			if err := cmds.PrintShort(r, r.Write); err != nil {
				return err
			}
			return r.Damage.Err(args[0])
		},
	}
	c.Flags().BoolVar(&entries, "entries", false, "list every put and delete")
	return c
}

func (cmds commands) raftLog() *cobra.Command {
	return &cobra.Command{
		Use:   "raftlog FILE",
		Short: "verify a segment of a raft log: header, every record",
		Long: `ovs inspect raftlog verifies a segment of an Arakoon group's log
(DIR/arakoon/GROUP/log/*.raft). Damage behind the last record that is known to have
been synced is what a power cut leaves, and not told.`,
		Args: cmds.Wants("FILE"),
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := inspect.RaftLog(args[0])
			if err != nil {
				return err
			}
			if err := cmds.PrintShort(r, r.Write); err != nil {
				return err
			}
			return r.Damage.Err(args[0])
		},
	}
}
