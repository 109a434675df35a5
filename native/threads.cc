// SPDX-License-Identifier: Apache-2.0
#include "threads.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

#include <pthread.h>
#include <signal.h>
#ifdef __linux__
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#ifdef __SSE2__
#include <xmmintrin.h>
#endif

#include "memory.h"

namespace backstride {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kPollEvery = std::chrono::milliseconds(50);
// A sleeping thread takes about 50 us to wake, a spinning one 0.1 us: spin as long as a wake-up would cost.
constexpr auto kSpin = std::chrono::microseconds(50);

std::atomic<int> thread_count{1};
std::atomic<Crew> lent{nullptr};
thread_local int borrowed = 0; // threads of the crew, or 0

/// Standard rounding and gradual underflow while it lives: threads that differ in them would differ in bits.
class FloatingPointDefaults {
#if defined(__SSE2__)
  public:
    FloatingPointDefaults() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80); }
    ~FloatingPointDefaults() { _mm_setcsr(saved_); }

  private:
    unsigned saved_;
#elif defined(__aarch64__)
  public:
    FloatingPointDefaults() : saved_(__builtin_aarch64_get_fpcr()) { __builtin_aarch64_set_fpcr(0); }
    ~FloatingPointDefaults() { __builtin_aarch64_set_fpcr(saved_); }

  private:
    unsigned saved_;
#endif
};

void relax() {
#ifdef __SSE2__
    _mm_pause();
#endif
}

/// What kernels have stored around the caches is seen by others from now on.
void publish() {
#ifdef __SSE2__
    _mm_sfence();
#endif
}

/// Spins until `ready` or until the time for it is over.
template <class Ready> void spin(Ready ready) {
    const auto end = Clock::now() + kSpin;
    while (!ready() && Clock::now() < end)
        relax();
}

/// The processors on which a thread may run. On a virtual machine whose idle processors have been taken away Linux
/// thinks that there are none, wakes a thread on the processor of the thread that wakes it, and leaves both there: a
/// call after 20 ms of rest took twice as long, and so did those after it. So helpers are kept away from their caller's
/// processor.
class Place {
#if defined(__linux__)
  public:
    /// The processor that this thread is on.
    static int here() { return sched_getcpu(); }

    /// Forbids a processor, if there are others.
    void leave(int processor) {
        if (processor < 0 || sched_getaffinity(thread_, sizeof allowed_, &allowed_) != 0)
            return;
        others_ = allowed_;
        CPU_CLR(processor, &others_);
        left_ = CPU_COUNT(&others_) > 0 && sched_setaffinity(thread_, sizeof others_, &others_) == 0;
    }
    /// Allows it again, unless somebody else has said meanwhile where the thread may run.
    void allow() {
        cpu_set_t now;
        if (std::exchange(left_, false) && sched_getaffinity(thread_, sizeof now, &now) == 0 &&
            CPU_EQUAL(&now, &others_))
            sched_setaffinity(thread_, sizeof allowed_, &allowed_);
    }

  private:
    const pid_t thread_ = static_cast<pid_t>(syscall(SYS_gettid));
    bool left_ = false;
    cpu_set_t allowed_, others_;
#else
  public:
    static int here() { return -1; }
    void leave(int) {}
    void allow() {}
#endif
};

/// When this thread, if it calls, is to ask its Poll next. A call's jobs, one after the other, may all be shorter.
thread_local Clock::time_point next_poll;

/// One parallel_for. It lives on the calling thread's stack, which leaves only when `helpers` is 0.
struct Job {
    Job(const std::function<void(Index)> &work, Index pieces, Poll asked, int helpers_wanted)
        : body(work), count(pieces), poll(asked), places(helpers_wanted) {
        if (const Clock::time_point now = Clock::now(); now > next_poll + kPollEvery)
            next_poll = now + kPollEvery; // of another call: jobs of this one would have asked by now
    }

    const std::function<void(Index)> &body;
    const Index count;
    const Poll poll;
    const bool keeps = Memory::keeps();
    const std::thread::id caller = std::this_thread::get_id();
    std::atomic<Index> next{0};
    std::atomic<bool> stopped{false};
    std::atomic<int> helpers{0};
    std::atomic<int> processor{-1}; // the caller's
    int places;                     // how many more helpers may join; guarded by the pool's mutex
    std::mutex error_mutex;
    std::exception_ptr error;

    bool open() const { return places > 0 && !stopped.load() && next.load() < count; }

    bool check() {
        if (!stopped.load(std::memory_order_relaxed) && poll && std::this_thread::get_id() == caller &&
            Clock::now() >= next_poll) {
            if (poll())
                stopped = true;
            next_poll = Clock::now() + kPollEvery;
        }
        return stopped.load(std::memory_order_relaxed);
    }

    /// A helper of the pool leaves the processor that the caller is on.
    void work(Place *helper = nullptr);
};

thread_local Job *current = nullptr;

void Job::work(Place *helper) {
    const FloatingPointDefaults defaults;
    const Memory::Work keeping(keeps);
    Job *const outer = std::exchange(current, this);
    try {
        while (!check()) {
            if (std::this_thread::get_id() == caller)
                processor.store(Place::here(), std::memory_order_relaxed);
            else if (helper && Place::here() == processor.load(std::memory_order_relaxed)) {
                helper->leave(Place::here());
                helper->allow();
                helper = nullptr; // once is enough
            }
            const Index i = next.fetch_add(1, std::memory_order_relaxed);
            if (i >= count)
                break;
            body(i);
        }
    } catch (...) {
        const std::lock_guard lock(error_mutex);
        if (!error)
            error = std::current_exception();
        stopped = true;
    }
    publish();
    current = outer;
}

/// A helper of the pool, whose mutex guards it.
class Helper {
  public:
    /// Until `news` is true after somebody woke it.
    template <class News> void sleep(std::unique_lock<std::mutex> &lock, News news) {
        asleep_ = true;
        wake_.wait(lock, news);
        asleep_ = false;
        place_.allow();
    }

    /// Wakes it, if it sleeps, but not here.
    bool wake() {
        if (!std::exchange(asleep_, false))
            return false;
        place_.leave(Place::here());
        wake_.notify_one();
        return true;
    }

    /// Does its part of a job.
    void work(Job &job) { job.work(&place_); }

  private:
    bool asleep_ = false;
    std::condition_variable wake_;
    Place place_;
};

class Pool {
  public:
    void run(Job &job) {
        const Index helpers = std::min<Index>(job.places, job.count - 1); // what others change from now on
        {
            const std::lock_guard lock(mutex_);
            grow(job.places);
            jobs_.push_back(&job);
            ++posted_;
            Index woken = 0;
            for (auto helper = helpers_.begin(); helper != helpers_.end() && woken < helpers; ++helper)
                woken += (*helper)->wake();
        }
        job.work();
        {
            const std::lock_guard lock(mutex_);
            std::erase(jobs_, &job);
        }
        const auto left = [&] { return job.helpers.load(std::memory_order_acquire) == 0; };
        spin(left);
        if (!left()) {
            std::unique_lock lock(mutex_);
            done_.wait(lock, left);
        }
    }

  private:
    void grow(int wanted) {
        sigset_t all, before;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before); // signals are for the threads of the program
        try {
            for (; workers_ < wanted; ++workers_)
                std::thread([this] { serve(); }).detach();
        } catch (const std::system_error &) {
            // No more threads to be had: those there are, at least the caller, do the work.
        }
        pthread_sigmask(SIG_SETMASK, &before, nullptr);
    }

    void serve() {
        Helper self;
        std::unique_lock lock(mutex_);
        helpers_.push_back(&self);
        for (;;) {
            if (Job *job = take()) {
                lock.unlock();
                self.work(*job);
                lock.lock();
                if (job->helpers.fetch_sub(1, std::memory_order_release) == 1)
                    done_.notify_all();
                continue;
            }
            const auto seen = posted_.load();
            const auto news = [&] { return posted_.load(std::memory_order_acquire) != seen; };
            lock.unlock();
            spin(news);
            lock.lock();
            self.sleep(lock, news);
        }
    }

    Job *take() {
        for (Job *job : jobs_)
            if (job->open()) {
                --job->places;
                job->helpers.fetch_add(1, std::memory_order_relaxed);
                return job;
            }
        return nullptr;
    }

    std::mutex mutex_;
    std::condition_variable done_;
    std::vector<Job *> jobs_;
    std::vector<Helper *> helpers_;
    std::atomic<std::uint64_t> posted_{0};
    int workers_ = 0;
};

// Never destroyed: its threads may still run while the process exits.
std::atomic<Pool *> the_pool{nullptr};

/// A forked child has none of its parent's threads, and perhaps a locked mutex, so it leaves pool and crew alone and
/// makes a pool of its own.
void forget_at_fork() {
    static const int registered = pthread_atfork(nullptr, nullptr, [] {
        the_pool = nullptr;
        lent = nullptr;
    });
    static_cast<void>(registered);
}

Pool &pool() {
    forget_at_fork();
    Pool *pool = the_pool.load();
    if (!pool) {
        Pool *fresh = new Pool;
        if (the_pool.compare_exchange_strong(pool, fresh))
            return *fresh;
        delete fresh;
    }
    return *pool;
}

/// All threads of the crew come, and those beyond the job's places leave at once: GCC's runtime would end threads for
/// which it is not asked, and the library that the crew is of would have to wait for new ones.
void run_on(Crew crew, Job &job) {
    const auto come = [](void *data) {
        Job &shared = *static_cast<Job *>(data);
        if (std::this_thread::get_id() == shared.caller || shared.helpers.fetch_add(1) < shared.places)
            shared.work();
    };
    crew(come, &job, static_cast<unsigned>(borrowed), 0);
}

} // namespace

void set_threads(int count) { thread_count = count; }
int threads() { return borrowed ? std::min(borrowed, thread_count.load()) : thread_count.load(); }

void lend(Crew crew) {
    forget_at_fork();
    lent = crew;
}

Borrowed::Borrowed(int threads) : outer_(std::exchange(borrowed, threads)) {}
Borrowed::~Borrowed() { borrowed = outer_; }

void parallel_for(Index count, const std::function<void(Index)> &body, Poll poll, Index most) {
    Job job(body, count, poll, static_cast<int>(std::min<Index>(threads(), most)) - 1);
    if (job.places <= 0 || count <= 1)
        job.work();
    else if (const Crew crew = borrowed ? lent.load() : nullptr)
        run_on(crew, job);
    else
        pool().run(job);
    if (job.error)
        std::rethrow_exception(job.error);
    if (job.stopped)
        throw Stopped();
}

bool interrupted() { return current && current->check(); }

} // namespace backstride
