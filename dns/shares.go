package dns

import (
	"sync"

	"golang.org/x/time/rate"

	"github.com/sixpn/sixpn"
)

// shares divides the upstream resolvers among tenants: how many questions wait at
// one time, in all, of one network and of one Machine, and how many a Machine may
// put in a second.
type shares struct {
	config Forward

	mu       sync.Mutex
	all      int
	networks map[sixpn.Network]int
	machines map[sixpn.Fields]*share
}

type share struct {
	waiting int
	pace    *rate.Limiter
}

// sweepAt is how many Machines are remembered before those at rest are looked for.
const sweepAt = 4096

func newShares(config Forward) *shares {
	return &shares{config: config, networks: make(map[sixpn.Network]int), machines: make(map[sixpn.Fields]*share)}
}

// take says whether a Machine may put one more question; then give has to follow.
func (s *shares) take(client sixpn.Fields) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	own, ok := s.machines[client]
	if !ok {
		s.sweep()
		own = &share{pace: rate.NewLimiter(rate.Limit(s.config.Rate), s.config.Burst)}
		s.machines[client] = own
	}
	if s.all >= s.config.Questions || s.networks[client.Network] >= s.config.QuestionsNetwork ||
		own.waiting >= s.config.QuestionsMachine || !own.pace.Allow() {
		return false
	}
	s.all++
	s.networks[client.Network]++
	own.waiting++
	return true
}

func (s *shares) give(client sixpn.Fields) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	s.machines[client].waiting--
	if s.networks[client.Network]--; s.networks[client.Network] == 0 {
		delete(s.networks, client.Network)
	}
}

// sweep forgets Machines that would be treated the same without a memory.
func (s *shares) sweep() {
	if len(s.machines) < sweepAt {
		return
	}
	for client, own := range s.machines {
		if own.waiting == 0 && own.pace.Tokens() >= float64(s.config.Burst) {
			delete(s.machines, client)
		}
	}
}
