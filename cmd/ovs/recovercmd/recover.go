// Package recovercmd has `ovs recover`: a person decides that what a group needs is gone for
// good. The first way back that it knows is a member that survives.
package recovercmd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"openvstorage/cmd/ovs/clustercmd"
	"openvstorage/host"
	"openvstorage/host/recovery"
)

// command is `ovs recover` with its flags.
type command struct {
	clustercmd.Tools
	directory func() (string, error)
	yes       bool
	from      from
	zones     int
}

// Command returns `ovs recover`. directory is the data directory that the user has named.
func Command(t clustercmd.Tools, directory func() (string, error)) *cobra.Command {
	cmd := &command{Tools: t, directory: directory}
	c := &cobra.Command{
		Use:   "recover [GROUP...] --data DIR",
		Short: "go on with what is on this host alone, when the other hosts are lost for good",
		Long: `ovs recover makes this host the only one that holds the Arakoon groups of its
cluster, or those that are named: with all that their members here hold, in a later life. It
works on a data directory that no ovs up uses. It first shows what it would do and what may
be missing, and asks. Then ovs up leads the groups here, and other hosts can join.

It refuses while a majority of a group's voters answers: then nothing needs a recovery. There
is no flag that overrides this. If the other hosts must never run again, stop them.

The hosts that held the other members are given up: they are refused from then on, by name,
also when they come back. Each joins again with an empty directory and a new token.
Deletion of data is suspended, until ovs alba backend resume-deletion.

With --require-zones it is for the side that has the majority, where ovs up runs and
answers nothing because another zone is missing (ovs arakoon require-zones). It lowers the
number of zones that must hold everything, in all groups, on your word that the other
zones are off for good. The hosts of these zones are given up: it names them first, asks,
and refuses while one of them answers. If it is cut short, run it again.
` + fromHelp,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              cmd.run,
	}
	c.Flags().BoolVar(&cmd.yes, "yes", false, "do it without asking; the other hosts must never run again")
	cmd.from.flags(c)
	c.Flags().IntVar(&cmd.zones, "require-zones", 0, "`number` of zones that must hold everything from now on; the others are off for good (default: none is lowered)")
	return c
}

// answer is what whoever decides has to type.
const answer = "recover"

func (cmd *command) run(c *cobra.Command, args []string) (err error) {
	switch {
	case c.Flags().Changed("require-zones") && (cmd.zones < 1 || len(args) > 0):
		return cmd.Usage("%s: --require-zones takes a number from 1 on, and no groups: it is for all of them", c.CommandPath())
	case cmd.from.what != fromBackup && (len(cmd.from.disks) > 0 || cmd.from.withoutBuffer):
		return cmd.Usage("%s: --asd and --without-buffer are for --from backup alone", c.CommandPath())
	case cmd.zones > 0 && c.Flags().Changed("from"):
		return cmd.Usage("%s: --require-zones goes on with the groups that run: give no --from", c.CommandPath())
	case cmd.zones > 0:
		return cmd.lower(c)
	}
	dir, err := cmd.directory()
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if cmd.from.what != fromSurvivor {
		return cmd.recoverFrom(c, dir, args)
	}
	return cmd.decide(c, options(c, dir, args...))
}

// options are those of a recovery of groups of a data directory.
func options(c *cobra.Command, dir string, groups ...string) recovery.Options {
	logger := slog.New(slog.NewTextHandler(c.ErrOrStderr(), &slog.HandlerOptions{Level: slog.LevelWarn}))
	return recovery.Options{Dir: dir, Groups: groups, Logger: logger}
}

// decide shows what a recovery will do, asks, and has it done.
func (cmd *command) decide(c *cobra.Command, o recovery.Options) (err error) {
	r, err := host.Recover(c.Context(), o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	plan := r.Plan()
	if asks, _ := c.Flags().GetBool("json"); !asks {
		write(c.OutOrStdout(), plan)
	}
	ask := "The hosts that are given up must be off, and never run again as they are."
	if o.From != recovery.FromSurvivor {
		ask = "What the group held otherwise is given up."
	}
	if err := cmd.confirm(c, ask); err != nil {
		return err
	}
	if err := r.Run(c.Context()); err != nil {
		return err
	}
	return cmd.Print(plan, func(w io.Writer) {
		if o.From != recovery.FromSurvivor {
			fmt.Fprintf(w, "made anew: group %s is there, in life %d; start it with ovs up --data %s, and then: ovs alba backend check, and resume-deletion\n", plan.Groups[0].Name, plan.Life, o.Dir)
			return
		}
		fmt.Fprintf(w, "recovered: this host holds the groups alone, in life %d; start it with ovs up --data %s --listen HOST:PORT\n", plan.Life, o.Dir)
	})
}

// confirm has a person decide, unless --yes was given.
func (cmd *command) confirm(c *cobra.Command, what string) error {
	if cmd.yes {
		return nil
	}
	fmt.Fprintf(c.ErrOrStderr(), "%s\nType %q to go on: ", what, answer)
	line, err := bufio.NewReader(io.LimitReader(c.InOrStdin(), 1<<10)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != answer {
		return fmt.Errorf("nothing was changed: %q was not typed; or give --yes", answer)
	}
	return nil
}

// write shows what a recovery will do.
func write(out io.Writer, p recovery.Plan) {
	if g := p.Groups[0]; g.From != recovery.FromSurvivor {
		fmt.Fprintf(out, "group %s of host %s is made anew from %s, in life %d; the others go on as they are\n", g.Name, p.Host, g.From, p.Life)
	} else {
		fmt.Fprintf(out, "host %s of cluster %s goes on alone, in life %d\n", p.Host, p.Cluster, p.Life)
	}
	if p.Resumes {
		fmt.Fprintln(out, "this was decided before, and is finished now")
	}
	fmt.Fprintln(out)
	if p.Groups[0].From == recovery.FromSurvivor {
		writeMembers(out, p)
	}
	fmt.Fprintln(out, "\nmay be missing:")
	for _, g := range p.Groups {
		fmt.Fprintf(out, "  %s: %s\n", g.Name, g.Missing)
		if g.Zones != "" && g.Zones != "no requirement" {
			fmt.Fprintf(out, "  %s: zones required: %s\n", g.Name, g.Zones)
		}
	}
	for _, l := range p.Lacks {
		fmt.Fprintf(out, "  %s\n", l)
	}
	if len(p.GivenUp) > 0 {
		fmt.Fprintln(out, "\ngiven up:")
	}
	for _, o := range p.GivenUp {
		fmt.Fprintf(out, "  host %s at %s: %s\n", o.Host, strings.Join(o.Addresses, ", "), o.State)
	}
	fmt.Fprintln(out)
}

// writeMembers shows the members that the groups go on with.
func writeMembers(out io.Writer, p recovery.Plan) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "GROUP\tMEMBER\tLIFE\tLAST ENTRY\tTERM\tKNOWN COMMITTED\tIN SYNC\tMEMBERS")
	for _, g := range p.Groups {
		sync := "-" // a voter is not asked for that
		switch {
		case g.InSync:
			sync = "yes"
		case g.Learner:
			sync = "no"
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\n", g.Name, g.Member, g.Life, g.Last, g.Term, g.Committed, sync, g.Members)
	}
	_ = w.Flush()
}
