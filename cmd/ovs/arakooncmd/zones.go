package arakooncmd

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"openvstorage/internal/control"
)

func (cmds commands) requireZones() *cobra.Command {
	return &cobra.Command{
		Use:   "require-zones [NUMBER]",
		Short: "show or set in how many zones everything must be held before it is answered",
		Long: `ovs arakoon require-zones shows in how many zones each group must hold everything
durably before anything is applied, read, watched or answered, and since which revision.

With a NUMBER it sets that for all groups, also for those to come; 1 is no requirement.
It is refused where hosts that may hold members are in fewer zones. It holds in a group
when that many zones have everything; LATER says that members are still to be made. Of
two zones that are required none may be lost: nothing is answered then, until it is back.
Lowering is recorded: a recovery from one zone says that it was done, and when.

If a zone is lost this command cannot lower the number, as nothing is answered: ovs
recover --require-zones 1 does, where the majority is, when the other zone is off for sure.`,
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, args []string) error {
			zones := 0
			if len(args) > 0 {
				var err error
				if zones, err = strconv.Atoi(args[0]); err != nil || zones < 1 {
					return cmds.Usage("%s: %q is no number of zones", c.CommandPath(), args[0])
				}
			}
			client, err := cmds.Client()
			if err != nil {
				return err
			}
			var list []control.ArakoonZones
			if zones == 0 {
				list, err = control.OfGroups(client).Zones(c.Context())
			} else {
				list, err = control.OfGroups(client).RequireZones(c.Context(), zones)
			}
			if err != nil {
				return err
			}
			return cmds.Print(list, func(w io.Writer) { writeZones(w, list) })
		},
	}
}

func writeZones(w io.Writer, list []control.ArakoonZones) {
	fmt.Fprintln(w, "GROUP\tASKED FOR\tREQUIRED\tSINCE\tMEMBERS IN\tNOTES")
	for _, g := range list {
		number := func(n int) string {
			if n < 2 {
				return "-"
			}
			return strconv.Itoa(n)
		}
		var notes []string
		switch {
		case g.Error != "":
			notes = append(notes, g.Error)
		case !g.InForce:
			notes = append(notes, "LATER")
		}
		if g.Lowered > 0 {
			note := fmt.Sprintf("lowered from %d at revision %d", g.From, g.Lowered)
			if g.Asserted {
				note += " by a person's word that the others were off"
			}
			notes = append(notes, note)
		}
		since, in := "-", "-"
		if g.Since > 0 {
			since = strconv.FormatUint(g.Since, 10)
		}
		if len(g.Zones) > 0 {
			in = strings.Join(g.Zones, ",")
		}
		if len(notes) == 0 {
			notes = []string{"-"}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%s\n", g.Group, number(g.Wanted), number(g.Required), since, in, strings.Join(notes, ", "))
	}
}
