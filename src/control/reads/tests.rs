//! Nodes and gateways over real sockets, with shards that answer from memory.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::answering::{AnswerSender, Answering, AnsweringLimits, NodeIdentity, QuestionFault};
use super::client::{NodeClient, NodeStatus};
use super::fault::ReadFault;
use super::lacking::NewsWithin;
use crate::base::queue::{NoWake, QueueSender};
use crate::control::fake_shards::{series, spawn_shard};
use crate::control::shards::{ShardHandle, Shards};
use crate::model::matcher::Matcher;
use crate::model::series::TenantId;
use crate::wire::frame::{FRAME_HEADER_BYTES, FrameKind, check_frame};
use crate::wire::health::Ping;
use crate::wire::hello::id_space;
use crate::wire::link::LinkFault;
use crate::wire::registry::{RegistryRequest, RegistryView};
use crate::wire::select::{SelectAnswer, SelectFault, SelectRequest, SelectWant};

mod deleting;
mod fleet;
mod hints;
mod network;

use network::{Flow, INCARNATION, SILENCE, TestNode, Way, endless_shard, secret, shards, soon};

fn up(instance: &str) -> ShardHandle {
    let labels = [("__name__", "up"), ("instance", instance)];
    spawn_shard(vec![series(&labels, &[(1, 1.0), (2, 2.0), (3, 3.0)])])
}

fn request(want: SelectWant) -> SelectRequest {
    SelectRequest {
        tenant: TenantId(0),
        matchers: vec![Matcher::equal("__name__", "up")],
        start_ms: 0,
        end_ms: 10,
        want,
        series_max: 100,
    }
}

/// The instances of all series that a node has.
async fn instances(client: &NodeClient) -> Result<Vec<String>, ReadFault> {
    let want = SelectWant::LabelValues("instance".into());
    let mut stream = client.select(&request(want)).await?;
    let mut found = Vec::new();
    while let Some(piece) = stream.next().await? {
        if let SelectAnswer::Strings(strings) = piece.answer {
            found.extend(strings.iter().map(ToString::to_string));
        }
    }
    found.sort();
    Ok(found)
}

#[tokio::test]
async fn selects_go_over_sockets_one_after_the_other() {
    // Red if the end of an answer is not told, or what an answer leaves behind is taken for the
    // next one's on the connection that both use.
    let node = TestNode::start(5, shards([up("a"), up("b")])).await;
    let client = node.client();
    let welcome = soon(client.welcome()).await.expect("it is there");
    assert_eq!((welcome.node, welcome.shard_count, welcome.placement_epoch), (5, 2, 1));
    for _ in 0..3 {
        assert_eq!(soon(instances(&client)).await, Ok(vec!["a".into(), "b".into()]));
        let mut stream = soon(client.select(&request(SelectWant::Samples))).await.expect("there");
        let mut counts = Vec::new();
        while let Some(piece) = soon(stream.next()).await.expect("whole") {
            let SelectAnswer::Series(series) = piece.answer else { panic!("series") };
            for one in series {
                let mut samples = one.samples.clone();
                one.chunks.iter().for_each(|chunk| chunk.decode(&mut samples).expect("whole"));
                counts.push(samples.len());
            }
        }
        assert_eq!(counts, [3, 3]);
    }
    let bad = SelectRequest {
        matchers: vec![Matcher::equal("job", "bad regex")],
        ..request(SelectWant::Labels)
    };
    let mut stream = soon(client.select(&bad)).await.expect("there");
    let fault = soon(stream.next()).await.expect_err("refused");
    assert_eq!(fault, ReadFault::Select(SelectFault::BadRegex("why".into())));
    assert_eq!(soon(instances(&client)).await.map(|found| found.len()), Ok(2));
}

#[tokio::test]
async fn ids_come_page_by_page_from_the_shard_that_was_asked() {
    // Red if the request's shard is not looked at, or a page bears the ids of another shard.
    let node = TestNode::start(5, shards([up("a"), up("b")])).await;
    let client = node.client();
    let mut position = 0;
    let mut ids = Vec::new();
    loop {
        let asked = RegistryRequest { shard: 1, position, entries_max: 4 };
        let (header, frame) = soon(client.request(asked.encode_frame())).await.expect("there");
        let page = RegistryView::check(&header, &frame[FRAME_HEADER_BYTES..]).expect("a page");
        assert_eq!((page.position(), page.id_space()), (position, id_space(5, INCARNATION, 1)));
        ids.extend(page.entries().map(|(hash, id)| (hash.0, id.0)));
        position = page.next_position();
        if page.is_end() {
            break;
        }
    }
    assert_eq!(ids, (0..10).map(|id| (u128::from(id) + 100, id)).collect::<Vec<_>>());
    // There is no such shard: the node says nothing to that, and cuts the link.
    let asked = RegistryRequest { shard: 2, position, entries_max: 4 };
    let fault = soon(client.request(asked.encode_frame())).await.expect_err("refused");
    assert!(matches!(fault, ReadFault::Broken(_)), "{fault:?}");
}

#[tokio::test]
async fn other_questions_go_to_whom_they_concern() {
    // Red if an answer does not bear the number of its question, or a question without an answer
    // waits for ever.
    let identity = NodeIdentity { node: 5, incarnation: 1 };
    let news_within = NewsWithin { first: Duration::ZERO, later: Duration::ZERO };
    let limits = AnsweringLimits { selects_max: 1, wait_max: Duration::ZERO, news_within };
    let (others, questions) = flume::bounded(4);
    let answering = Answering::new(Shards::new(vec![]), identity, limits).with_others(others);
    let (sender, mut answers) = tokio::sync::mpsc::channel(4);
    // Any kind but those that are answered here.
    let question = Ping { number: 3 }.encode_frame();
    let header = check_frame(&question).expect("sealed");
    let ask = |number| {
        let answers = AnswerSender::new(number, sender.clone());
        let (answering, question) = (answering.clone(), question.clone());
        async move { answering.answer(header, question, answers).await }
    };
    let answer_all = async {
        let first = questions.recv_async().await.expect("two come");
        let second = questions.recv_async().await.expect("two come");
        for question in [second, first] {
            question.reply.send(question.frame.clone()).expect("it waits");
        }
        drop(questions.recv_async().await.expect("another one"));
    };
    let asked = async { (tokio::join!(ask(70), ask(71)), ask(72).await) };
    let (((one, other), unanswered), ()) = soon(async { tokio::join!(asked, answer_all) }).await;
    assert_eq!((one, other), (Ok(()), Ok(())));
    assert_eq!(unanswered, Err(QuestionFault::Unanswered(FrameKind::Ping)));
    for number in [71, 70] {
        let answer = answers.try_recv().expect("two came");
        assert_eq!(check_frame(&answer).expect("sealed again").sequence, number);
    }
}

#[tokio::test]
async fn a_stranger_gets_nothing() {
    // Red if the welcome does not need a proof, if a stranger's questions are answered, or if
    // strangers are not counted.
    let node = TestNode::start(5, shards([up("a")])).await;
    let other = secret("another fleet's secret");
    let client = NodeClient::start(node.address, node.dialler(), SILENCE, other).expect("a kernel");
    let fault = soon(client.welcome()).await.expect_err("refused");
    assert!(matches!(fault, ReadFault::Broken(_)), "{fault:?}");
    let mut silent = Vec::new();
    for place in 0..5 {
        let mut stream = TcpStream::connect(node.address).await.expect("it listens");
        let mut bytes = vec![0; 4096];
        let count = soon(stream.read(&mut bytes)).await.unwrap_or(0);
        if place < 3 {
            let header = check_frame(&bytes[..count]).expect("one frame");
            assert_eq!(header.kind, FrameKind::Challenge);
        }
        silent.push((stream, count));
    }
    // The client above may hold one of the four places, just now.
    assert_eq!(silent[4].1, 0, "the fifth is sent away");
    let question = request(SelectWant::Labels).encode_frame();
    let (stream, _) = &mut silent[0];
    tokio::io::AsyncWriteExt::write_all(stream, &question).await.expect("it is open");
    let mut bytes = Vec::new();
    let rest = soon(stream.read_to_end(&mut bytes)).await;
    assert!(bytes.is_empty(), "{rest:?} {}", bytes.len());
}

#[tokio::test]
async fn a_node_that_is_gone_is_known_to_be_and_found_again() {
    // Red if the client does not dial again, or keeps a connection of before for a select.
    let node = TestNode::start(5, shards([up("a")])).await;
    let client = node.client();
    assert_eq!(soon(instances(&client)).await.map(|found| found.len()), Ok(1));
    let mut status = client.status();
    let (address, held) = (node.address, (node.id(), node.shard_count));
    assert_eq!(held, (5, 1));
    drop(node);
    let is_down = |status: &NodeStatus| matches!(status, NodeStatus::Down(_));
    soon(status.wait_for(is_down)).await.expect("the client lives");
    assert!(soon(instances(&client)).await.is_err());
    let _again = TestNode::start_at(address, 5, shards([up("b")])).await;
    let is_up = |status: &NodeStatus| matches!(status, NodeStatus::Up(_));
    soon(status.wait_for(is_up)).await.expect("the client lives");
    assert_eq!(soon(instances(&client)).await, Ok(vec!["b".into()]));
    let wrong = crate::wire::link::Dialler { node_expected: 6, ..node_dialler(1) };
    let secret = secret("the fleet's secret");
    let client = NodeClient::start(address, wrong, SILENCE, secret).expect("a kernel");
    let fault = soon(client.welcome()).await.expect_err("another node");
    assert!(matches!(fault, ReadFault::Refused(_) | ReadFault::Link(LinkFault::WrongNode)));
}

fn node_dialler(shard_count: u32) -> crate::wire::link::Dialler {
    crate::wire::link::Dialler {
        gateway: 99,
        gateway_shard: 0,
        gateway_shard_count: 1,
        node_expected: 0,
        node_shard: shard_count,
    }
}

#[tokio::test]
async fn a_node_that_is_silent_is_given_up_in_the_middle_of_an_answer() {
    // Red if silence is looked at between questions only: the read would hang for as long as the
    // node is stopped.
    let (endless, _told) = endless_shard("up");
    let node = TestNode::start(5, shards([endless])).await;
    let way = Way::to(node.address).await;
    let client = node.client_at(way.address);
    let mut stream = soon(client.select(&request(SelectWant::Samples))).await.expect("there");
    assert!(soon(stream.next()).await.expect("it comes").is_some());
    way.flow.send_replace(Flow::Stops);
    let fault = soon(async {
        loop {
            if let Err(fault) = stream.next().await {
                return fault;
            }
        }
    });
    assert_eq!(fault.await, ReadFault::Silent);
    // From now on nobody waits for it.
    let mut status = client.status();
    let is_down = |status: &NodeStatus| matches!(status, NodeStatus::Down(_));
    soon(status.wait_for(is_down)).await.expect("the client lives");
    let quickly = tokio::time::timeout(Duration::from_millis(100), instances(&client)).await;
    assert!(matches!(quickly, Ok(Err(ReadFault::Silent))), "{quickly:?}");
}

#[tokio::test]
async fn an_answer_that_is_cut_is_no_answer() {
    // Red if the end of a connection is taken for the end of an answer.
    for most in [1000, 50_000, 700_000] {
        let (endless, told) = endless_shard("up");
        let node = TestNode::start(5, shards([endless])).await;
        let way = Way::to(node.address).await;
        let client = node.client_at(way.address);
        soon(client.welcome()).await.expect("it is there");
        let mut stream = soon(client.select(&request(SelectWant::Samples))).await.expect("there");
        way.flow.send_replace(Flow::CutAfter(most));
        let fault = soon(async {
            loop {
                match stream.next().await {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("it is endless"),
                    Err(fault) => return fault,
                }
            }
        });
        assert!(matches!(fault.await, ReadFault::Broken(_)));
        // And the node works for nobody.
        let is_over = async { while soon(told.recv_async()).await != Ok("unwanted") {} };
        soon(is_over).await;
    }
}

#[tokio::test]
async fn a_slow_reader_holds_back_the_shards_and_nobody_else() {
    // Red if a frame that has no room is dropped, or kept without a limit: the shard would never be
    // stuck. Red, too, if questions of two gateways share a queue.
    let (endless, told) = endless_shard("up");
    let node = TestNode::start(5, shards([endless])).await;
    let (slow, quick) = (node.client(), node.client());
    let mut stream = soon(slow.select(&request(SelectWant::Samples))).await.expect("there");
    assert!(soon(stream.next()).await.expect("it comes").is_some());
    assert_eq!(soon(told.recv_async()).await, Ok("stuck"));
    let asked = RegistryRequest { shard: 9, position: 0, entries_max: 1 }.encode_frame();
    assert!(soon(quick.request(asked)).await.is_err(), "answered, while the other waits");
    drop(stream);
    let is_over = async { while soon(told.recv_async()).await != Ok("unwanted") {} };
    soon(is_over).await;
}

#[tokio::test]
async fn a_node_takes_so_many_selects_at_a_time() {
    // Red if the places are not counted, or not given back.
    let (sender, requests) = flume::bounded(64);
    let stuck = ShardHandle::new(QueueSender::new(sender, std::sync::Arc::new(NoWake)));
    let node = TestNode::start(5, shards([stuck])).await;
    let client = node.client();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(soon(client.select(&request(SelectWant::Labels))).await.expect("there"));
    }
    let mut faults = Vec::new();
    for stream in &mut streams {
        let patience = Duration::from_millis(300);
        if let Ok(Err(fault)) = tokio::time::timeout(patience, stream.next()).await {
            faults.push(fault);
        }
    }
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(matches!(&faults[0], ReadFault::Select(SelectFault::Unavailable(_))));
    drop(streams);
    drop(requests);
    let fault = soon(instances(&client)).await.expect_err("the shard is gone");
    assert!(matches!(fault, ReadFault::Select(SelectFault::Unavailable(_))), "{fault:?}");
}
