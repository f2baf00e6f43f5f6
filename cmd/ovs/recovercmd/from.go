package recovercmd

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/arakooncmd"
	"openvstorage/host/recovery"
)

// What --from may say.
const (
	fromSurvivor = "surviving-member"
	fromBackup   = "backup"
	fromDisks    = "disks"
	fromNothing  = "nothing"
)

const fromHelp = `
With --from backup BACKUPDIR the groups of a data directory that has lost them all are made
of a backup: see ovs restore metadata, which does the same.

With GROUP FILE --from backup one group alone is made anew, of the file of ovs arakoon backup
or of its file in BACKUPDIR, where the others are there as they were; with GROUP --from
nothing it begins empty. It shows what will be missing, and asks. Move what is left of the
group away first. From a backup: nsm-0 and registry. From nothing: nsm-0, all of whose vDisks
are lost. The rest is refused, with the reason, and so is --from disks: see
docs/operations.md.`

// from is where a recovery takes a group from.
type from struct {
	what          string
	withoutBuffer bool
	disks         []string
}

func (f *from) flags(c *cobra.Command) {
	c.Flags().StringVar(&f.what, "from", fromSurvivor, "go on with `what` there is: surviving-member, backup, disks or nothing")
	c.Flags().BoolVar(&f.withoutBuffer, "without-buffer", false, "with --from backup: go on without what vDisks' local files have beyond the backend")
	c.Flags().StringArrayVar(&f.disks, "asd", nil, "with --from backup: a disk of the backend is in this `directory`, not where the backup has it")
	_ = c.MarkFlagDirname("asd")
	_ = c.RegisterFlagCompletionFunc("from", cobra.FixedCompletions([]cobra.Completion{fromSurvivor, fromBackup, fromDisks, fromNothing}, cobra.ShellCompDirectiveNoFileComp))
}

// whyNot says of each group why nothing can be made of what disks have.
var whyNot = map[string]string{
	"abm":      "disks have their own identities, and neither their numbers nor the names of namespaces, by which fragments are found",
	"nsm-0":    "the key of a fragment does not say of what object it is a part, and ovs recover reads nothing else on disks",
	"registry": "catalogs of vDisks do not have their names",
}

// recoverFrom recovers from something else than a member that survives.
func (cmd *command) recoverFrom(c *cobra.Command, dir string, args []string) error {
	switch cmd.from.what {
	case fromBackup:
		if len(args) == 2 && !cmd.from.withoutBuffer && len(cmd.from.disks) == 0 {
			return cmd.oneOf(c, dir, args[0], args[1])
		}
		if len(args) != 1 {
			return cmd.Usage("%s --from backup wants BACKUPDIR, of which all groups are made; or GROUP FILE for one group, without --without-buffer and --asd: the others know what these say", c.CommandPath())
		}
		return arakooncmd.Restore(cmd.Tools, c, args[0], cmd.from.withoutBuffer, cmd.from.disks)
	case fromDisks:
		var why []string
		for _, g := range []string{"abm", "nsm-0", "registry"} {
			if len(args) == 0 || slices.Contains(args, g) {
				why = append(why, g+": "+whyNot[g])
			}
		}
		if len(why) == 0 {
			return fmt.Errorf("no group of %s is known", strings.Join(args, ", "))
		}
		return fmt.Errorf("no group can be made of what disks have; nothing was changed. %s", strings.Join(why, "; "))
	case fromNothing:
		if len(args) != 1 {
			return cmd.Usage("%s --from nothing wants one GROUP", c.CommandPath())
		}
		o := options(c, dir, args[0])
		o.From = recovery.FromNothing
		return cmd.decide(c, o)
	}
	return cmd.Usage("%s: --from is surviving-member, backup, disks or nothing, not %q", c.CommandPath(), cmd.from.what)
}

// oneOf makes one group anew of its backup.
func (cmd *command) oneOf(c *cobra.Command, dir, group, name string) error {
	file, err := arakooncmd.BackupOf(name, group)
	if err != nil {
		return err
	}
	o := options(c, dir, group)
	o.From = recovery.FromBackup
	o.Backup = func() (io.ReadCloser, error) { return os.Open(file) }
	return cmd.decide(c, o)
}
