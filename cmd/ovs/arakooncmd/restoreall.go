package arakooncmd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/host/restore"
	"openvstorage/internal/disk/osdisk"
)

func (cmds commands) restoreMetadata() *cobra.Command {
	without, disks := false, []string(nil)
	c := &cobra.Command{
		Use:   "metadata BACKUPDIR",
		Short: "make the groups of a data directory of a backup of all of them",
		Long: `ovs restore metadata makes the groups of the data directory, which --data names, of a
backup by ovs backup metadata. The directory is the one that has lost its arakoon/, all
else in its place; or one that is absent or empty, on this machine or another. Nothing
is restored over groups that are there, and no ovs up may run on the directory.

What was written after the backup is not known to the groups. Where the files of a vDisk
in DIR/buffer have all of it, the vDisk goes on with that. Where something in between is
missing, the vDisk is halted and says so; with --without-buffer, all of these files are
put aside, and vDisks go on with what the backend had when the backup was taken. A new
directory has no such files.

Disks are asked what they have seen, so that no number is given out twice. Name those that
are not where the backup has them by --asd, here and to ovs up.

Nothing on disks is deleted until ovs alba backend resume-deletion, which checks first.
Groups are of a later life: other hosts' members of them are refused, and so is the
directory that was lost.`,
		Args: cmds.Wants("BACKUPDIR"),
		RunE: func(c *cobra.Command, args []string) error {
			return Restore(cmds.Tools, c, args[0], without, disks)
		},
	}
	c.Flags().StringArrayVar(&disks, "asd", nil, "a disk of the backend is in this `directory`, not where the backup has it; give one for each")
	_ = c.MarkFlagDirname("asd")
	c.Flags().BoolVar(&without, "without-buffer", false, "go on without what vDisks' local files have beyond the backend")
	return c
}

// Restore makes the groups of the data directory that --data names of a backup of all, and
// says what it has made. See restore.Options for the rest.
func Restore(t clustercmd.Tools, c *cobra.Command, from string, withoutBuffer bool, disks []string) error {
	report, err := commands{t}.restoreInto(c, from, withoutBuffer, disks)
	if err != nil {
		return err
	}
	return t.Print(report, func(w io.Writer) { showRestored(w, report) })
}

func (cmds commands) restoreInto(c *cobra.Command, from string, without bool, disks []string) (restore.Report, error) {
	data, err := c.Flags().GetString("data")
	if err != nil {
		return restore.Report{}, err
	}
	if data == "" {
		return restore.Report{}, cmds.Usage("no data directory named; use --data DIR or set OVS_DATA")
	}
	list, err := backups(from)
	if err != nil {
		return restore.Report{}, err
	}
	dir, err := filepath.Abs(data)
	if err != nil {
		return restore.Report{}, err
	}
	o := restore.Options{FS: osdisk.New(), Dir: dir, WithoutBuffer: without}
	for _, i := range list {
		o.Backups = append(o.Backups, restore.Backup{Group: i.Group, Open: func() (io.ReadCloser, error) { return os.Open(i.File) }})
	}
	for _, d := range disks {
		abs, err := filepath.Abs(d)
		if err != nil {
			return restore.Report{}, err
		}
		o.Disks = append(o.Disks, abs)
	}
	report, err := restore.Run(c.Context(), o)
	if errors.Is(err, restore.ErrExists) {
		err = fmt.Errorf("%w; or give --data a new directory", err)
	}
	return report, err
}

// showRestored tells a person what was restored, and what is to be done.
func showRestored(w io.Writer, r restore.Report) {
	fmt.Fprintf(w, "directory\t%s\nlife\t%d\n", r.Dir, r.Life)
	for _, g := range r.Groups {
		fmt.Fprintf(w, "group\t%s, member %d, as of revision %d: %d keys\n", g.Name, g.Member, g.Revision, g.Keys)
	}
	for _, d := range r.Disks {
		if d.Missing != "" {
			fmt.Fprintf(w, "disk\t%d: not asked what it has seen: %s\n", d.Number, d.Missing)
		}
	}
	for _, v := range r.VDisks {
		if v.Local {
			fmt.Fprintf(w, "vDisk\t%s: its local files are looked at when it is opened\n", v.Name)
		} else {
			fmt.Fprintf(w, "vDisk\t%s: what was in the backend; it had been flushed up to seq %d\n", v.Name, v.Flushed)
		}
	}
	for _, h := range r.Hosts {
		fmt.Fprintf(w, "host\t%s: its members are given up; `ovs host remove %s --lost`, and join it anew with an empty directory\n", h.ID, h.ID)
	}
	if r.Zones {
		fmt.Fprintln(w, "zones\tnone are required any more to hold what is answered")
	}
	if r.Trust != "" {
		fmt.Fprintf(w, "trust\tno backup has %s: put that of the lost directory there; or give ovs up --listen the passphrase of the cluster's authority (--ca-passphrase-file)\n", r.Trust)
	}
	if r.Aside != "" {
		fmt.Fprintf(w, "put aside\t%s\n", r.Aside)
	}
	fmt.Fprintln(w, "missing\twhat was written after the backup, unless the local files of a vDisk have it")
	fmt.Fprintln(w, "next\tovs up; then ovs alba backend check, and resume-deletion: until then nothing is deleted on disks")
}
