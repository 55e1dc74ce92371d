package state

import (
	"context"
	"sync"
)

// queues lets writers of one thing take turns, in the order they came. Transactions
// are safe without it; but writers of one process that all run into each other's
// conflicts do mostly lost work, and the unlucky wait for ever.
type queues struct {
	mu  sync.Mutex
	all map[string]*queue
}

type queue struct {
	turn  chan struct{} // holds a token while it is nobody's turn
	users int           // in the queue or at their turn
}

// enter waits for a turn and returns the function that ends it. The error is the
// context's.
func (q *queues) enter(ctx context.Context, what string) (leave func(), err error) {
	q.mu.Lock()
	one := q.all[what]
	if one == nil {
		one = &queue{turn: make(chan struct{}, 1)}
		one.turn <- struct{}{}
		if q.all == nil {
			q.all = map[string]*queue{}
		}
		q.all[what] = one
	}
	one.users++
	q.mu.Unlock()

	select {
	case <-one.turn:
		return func() {
			one.turn <- struct{}{}
			q.forget(what, one)
		}, nil
	case <-ctx.Done():
		q.forget(what, one)
		return nil, ctx.Err()
	}
}

func (q *queues) forget(what string, one *queue) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(q.all, what)
	}
}
