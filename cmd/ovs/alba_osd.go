package main

import (
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
	"openvstorage/internal/counted"
)

// osdCommands are the commands of `ovs alba osd`.
type osdCommands struct{ *app }

func (cmds osdCommands) group() *cobra.Command {
	return group("osd", "disks: list, add, replace, remove",
		cmds.list(), cmds.show(), cmds.add(), cmds.replace(), cmds.remove())
}

func (cmds osdCommands) list() *cobra.Command {
	return &cobra.Command{
		Use:               "list",
		Short:             "list the disks: where they are, how full, and what is wrong with them",
		Args:              wants(),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: cmds.asks(func(c *cobra.Command, client *control.Client, _ []string) error {
			list, err := client.OSDs(c.Context())
			if err != nil {
				return err
			}
			return cmds.print(list, func(w io.Writer) { writeOSDs(w, list) })
		}),
	}
}

func writeOSDs(w io.Writer, list []control.OSD) {
	fmt.Fprintln(w, "DISK\tSTATE\tUSED\tCAPACITY\tFRAGMENTS\tBYTES\tERRORS\tDIRECTORY")
	for _, o := range list {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%s\t%d\t%s\n",
			o.Number, o.State, human(o.Used), human(o.Capacity), o.Fragments, human(o.Bytes), o.Errors+o.Corrupt, o.Dir)
	}
	writeHosts(w, list)
	for _, o := range list {
		if o.Reason != "" {
			fmt.Fprintf(w, "disk %d is %s: %s%s\n", o.Number, o.State, o.Reason, since(o.Since))
		}
	}
	writeShared(w, list)
}

// writeHosts says which disks are in which host, if they are in more than one.
func writeHosts(w io.Writer, list []control.OSD) {
	on := make(map[string][]string)
	for _, o := range list {
		on[o.Node] = append(on[o.Node], fmt.Sprint(o.Number))
	}
	for _, node := range slices.Sorted(maps.Keys(on)) {
		if len(on) > 1 {
			fmt.Fprintf(w, "host %s has disks %s\n", node, strings.Join(on[node], ", "))
		}
	}
}

// writeShared says which disks are on one file system: policies count on them as separate
// disks, and are wrong then.
func writeShared(w io.Writer, list []control.OSD) {
	on := make(map[string][]string)
	for _, o := range list {
		if o.FileSystem != "" {
			on[o.FileSystem] = append(on[o.FileSystem], fmt.Sprint(o.Number))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(on)) {
		if len(on[name]) > 1 {
			fmt.Fprintf(w, "disks %s are on one file system: what is left of it they have together, and they are lost together\n", strings.Join(on[name], ", "))
		}
	}
}

// since says since when something is so, if that is known.
func since(t *time.Time) string {
	if t == nil {
		return ""
	}
	return ", since " + when(*t)
}

func (cmds osdCommands) show() *cobra.Command {
	return &cobra.Command{
		Use:               "show DISK",
		Short:             "show one disk, by its number",
		Args:              wants("DISK"),
		ValidArgsFunction: cmds.offers().osds(),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := osdNumber(c, args[0])
			if err != nil {
				return err
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			o, err := client.OSD(c.Context(), number)
			if err != nil {
				return err
			}
			return cmds.printOSD(o)
		},
	}
}

// allowUnmountedUsage is the text of --allow-unmounted. By default such a directory is refused,
// as a disk that is not mounted would otherwise silently fill the file system below it.
const allowUnmountedUsage = "make it also in a directory that looks like a mount point with nothing mounted"

func (cmds osdCommands) add() *cobra.Command {
	allow := false
	c := &cobra.Command{
		Use:   "add [DIR]",
		Short: "make an ASD in an empty directory and take it into the backend",
		Long: `ovs alba osd add makes an ASD in DIR, the mount of a disk or another empty
directory, and takes it into the backend. Without DIR it is made in the data
directory. New fragments go where there is room; old ones stay where they are.`,
		Example: "  ovs alba osd add /mnt/disk4",
		Args:    atMost("DIR"),
		RunE: func(c *cobra.Command, args []string) error {
			dir := ""
			if len(args) == 1 {
				if dir = args[0]; dir == "" {
					return usagef("%s: the name of the directory is empty", c.CommandPath())
				}
			}
			dir, err := absolute(dir)
			if err != nil {
				return err
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			o, err := client.AddOSD(c.Context(), dir, allow)
			if err != nil {
				return err
			}
			return cmds.printOSD(o)
		},
	}
	c.Flags().BoolVar(&allow, "allow-unmounted", false, allowUnmountedUsage)
	return c
}

func (cmds osdCommands) replace() *cobra.Command {
	var dir string
	allow := false
	c := &cobra.Command{
		Use:   "replace DISK [--asd DIR]",
		Short: "give a lost disk up for good and take an empty one in its place",
		Long: `ovs alba osd replace gives a disk up that is missing, and all that it holds,
for good, and makes an ASD in its place: in the same directory, which must be
empty, or in that of --asd. What the old one held is made again from the others.

A disk that is there is not given up: ovs alba osd remove moves its fragments
off first.`,
		Example:           "  ovs alba osd replace 2\n  ovs alba osd replace 2 --asd /mnt/disk4",
		Args:              wants("DISK"),
		ValidArgsFunction: cmds.offers().osds(),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := osdNumber(c, args[0])
			if err != nil {
				return err
			}
			if c.Flags().Changed("asd") && dir == "" {
				return usagef("%s: --asd: the name of the directory is empty", c.CommandPath())
			}
			if dir, err = absolute(dir); err != nil {
				return err
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			o, err := client.ReplaceOSD(c.Context(), number, dir, allow)
			if err != nil {
				return err
			}
			return cmds.printOSD(o)
		},
	}
	c.Flags().StringVar(&dir, "asd", "", "make the new ASD in `DIR`, an empty directory (default: where the old one was)")
	_ = c.MarkFlagDirname("asd")
	c.Flags().BoolVar(&allow, "allow-unmounted", false, allowUnmountedUsage)
	return c
}

func (cmds osdCommands) remove() *cobra.Command {
	return &cobra.Command{
		Use:   "remove DISK",
		Short: "have a disk's fragments moved to others, then forget it",
		Long: `ovs alba osd remove has a disk drained: its fragments are moved to other disks,
and when it holds none it is forgotten and no more listed. It does not wait for
that. With too few disks left it stays "draining", and nothing is given up.`,
		Args:              wants("DISK"),
		ValidArgsFunction: cmds.offers().osds(),
		RunE: func(c *cobra.Command, args []string) error {
			number, err := osdNumber(c, args[0])
			if err != nil {
				return err
			}
			client, err := cmds.client()
			if err != nil {
				return err
			}
			if err := client.RemoveOSD(c.Context(), number); err != nil {
				return err
			}
			return cmds.done("draining disk", args[0])
		},
	}
}

func (cmds osdCommands) printOSD(o control.OSD) error {
	return cmds.print(o, func(w io.Writer) {
		row := func(name, value string) {
			if value != "" {
				fmt.Fprintf(w, "%s\t%s\n", name, value)
			}
		}
		row("disk", fmt.Sprint(o.Number))
		row("id", o.ID.String())
		row("state", string(o.State)+since(o.Since))
		row("reason", o.Reason)
		row("directory", o.Dir)
		row("node", o.Node)
		row("used", human(o.Used)+" of "+human(o.Capacity)+percent(o.Used, o.Capacity))
		row("fragments", fmt.Sprintf("%d of objects, %s; %d to be deleted", o.Fragments, human(o.Bytes), o.Obsolete))
		if o.Replaces != 0 {
			row("replaces", fmt.Sprintf("disk %d", o.Replaces))
		}
		row("since the start", fmt.Sprintf("%s, %s, %s, %d corrupt, %s refused for want of room",
			counted.Of(o.Reads, "read", "reads"), counted.Of(o.Writes, "write", "writes"), counted.Of(o.Errors, "error", "errors"), o.Corrupt, counted.Of(o.Refused, "write", "writes")))
		if o.Scrub != nil {
			row("scrub", scrubText(*o.Scrub))
		}
	})
}

// osdNumber reads the number of a disk.
func osdNumber(c *cobra.Command, text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || n == 0 {
		return 0, usagef("%s: %q is no number of a disk; see ovs alba osd list", c.CommandPath(), text)
	}
	return n, nil
}

// absolute returns a directory as the server must be told of it: the server has another working
// directory. "" stays.
func absolute(dir string) (string, error) {
	if dir == "" {
		return "", nil
	}
	return filepath.Abs(dir)
}

// atMost checks that there are no more arguments than names.
func atMost(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) <= len(names) {
			return nil
		}
		return usagef("%s wants %s at most, got %d; see %s --help", c.CommandPath(), counted.Of(len(names), "argument", "arguments"), len(args), c.CommandPath())
	}
}
